"""The formulas on a device: those of the compiled kernels, to rounding."""

import sys

import numpy as np
import pytest

from plait import mash
from plait.errors import DependencyError, OptionError
from plait.execution import devices
from plait.mash import likelihoods

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tests.pretended_device import PLACE, pretended  # noqa: E402

has_gpu = torch.cuda.is_available()


def study(seed=0, varying=False):
    random = np.random.default_rng(seed)
    truth = np.where(random.random((40_000, 1)) < 0.2, random.normal(size=(40_000, 4)) * 3, 0.0)
    truth[0] = 40  # beyond where 1 - Phi rounds to zero
    errors = random.uniform(0.5, 2, truth.shape) if varying else np.ones(truth.shape)
    V = 0.7 * np.eye(4) + 0.3
    data = mash.mash_set_data(truth + random.normal(size=truth.shape), errors, V=V)
    return data, {**mash.cov_canonical(data), **mash.cov_pca(data, 3)}


def agree(found, expected):
    for name in ("posterior_mean", "posterior_sd", "lfsr", "lfdr", "negative_prob", "vloglik"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-12, err_msg=name
        )
    np.testing.assert_allclose(found.alt_loglik, expected.alt_loglik, rtol=1e-9)
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_the_device_agrees_with_the_kernels(alpha, place, monkeypatch):
    if place == "cuda" and not has_gpu:
        pytest.skip("there is no GPU here")
    data, Ulist = study()
    if alpha == 1:
        plain, Ulist = study(varying=True)
        data = mash.mash_set_data(plain.Bhat, plain.Shat, alpha=1, V=plain.V)
    expected = mash.mash(data, Ulist, output_lfdr=True)
    monkeypatch.setattr(likelihoods, "torch_device", lambda device: torch.device(place))
    refitted = mash.mash(data, Ulist, device="cuda", output_lfdr=True)
    np.testing.assert_allclose(refitted.optim["objective"], expected.optim["objective"], rtol=1e-9)
    applied = mash.mash(data, g=expected, fixg=True, device="cuda", output_lfdr=True)
    agree(applied, expected)
    assert applied.lfsr[0].max() < 1e-100
    mapped = mash.mash(data, g=expected, fixg=True, A=np.eye(4)[:2], device="auto")
    np.testing.assert_allclose(mapped.lfsr, expected.lfsr[:, :2], rtol=1e-6, atol=1e-12)
    assert not np.array_equal(applied.lfsr, expected.lfsr)  # it was the device that computed them


def test_arrays_of_a_device_meet_no_others(monkeypatch):
    data, Ulist = study()
    few = mash.subset_mash_data(data, slice(0, 50))
    fitted = mash.mash(data, Ulist, outputlevel=1)
    monkeypatch.setattr(likelihoods, "torch_device", lambda device: PLACE)
    with pretended(monkeypatch) as seen:
        mash.mash(few, g=fitted, fixg=True, device="cuda", A=np.eye(4)[:2], output_lfdr=True)
    assert seen.operations > 100
    assert not seen.mixed


def test_what_a_device_cannot_do(monkeypatch):
    data, Ulist = study(varying=True)
    monkeypatch.setattr(likelihoods, "torch_device", lambda device: torch.device("cpu"))
    with pytest.raises(OptionError, match="share one error covariance"):
        mash.mash(data, Ulist, device="cuda")
    common, Ulist = study()
    with pytest.raises(OptionError, match="outputlevel 1 or 2"):
        mash.mash(common, Ulist, device="cuda", outputlevel=3, chunk_size=None)
    small = mash.subset_mash_data(common, slice(0, 50))
    fitted = mash.mash(common, Ulist, outputlevel=1)
    kept = mash.mash(small, g=fitted, fixg=True, device="auto", outputlevel=3)
    assert kept.posterior_cov.shape == (50, 4, 4)


def test_which_device_is_meant(monkeypatch):
    assert devices.torch_device("cpu") is None
    with pytest.raises(OptionError, match="'cpu', 'cuda' or 'auto'"):
        devices.torch_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.torch_device("auto") is None
    with pytest.raises(OptionError, match="sees no GPU"):
        devices.torch_device("cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert devices.torch_device("auto") is None
    with pytest.raises(DependencyError, match=r"plait\[gpu\]"):
        devices.torch_device("cuda")
