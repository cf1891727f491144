from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console

from plait.errors import FileFormatError, NotAvailableError, OptionError, OutputError
from plait.io import Result, freeze
from plait.io.store import Contents, read_store, write_store
from plait.provenance import Provenance

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Prior(Result):
    pi: Array
    Ulist: dict[str, Array]
    grid: Array
    usepointmass: bool = True
    dims: ClassVar = {
        "pi": ("components",),
        "Ulist": ("covariances", "contexts", "contexts"),
        "grid": ("grid",),
    }


@dataclass(frozen=True, eq=False)
class ShrunkenEffects(Result):
    posterior_mean: Array | None
    lfsr: Array | None
    loglik: float
    vloglik: Array | None = None
    posterior_cov: Array | None = None
    condition_names: tuple[str, ...] | None = None
    effect_names: Array | None = None
    fitted_g: Prior | None = None
    optim: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None
    dims: ClassVar = {
        "posterior_mean": ("effects", "contexts"),
        "lfsr": ("effects", "contexts"),
        "vloglik": ("effects",),
        "posterior_cov": ("effects", "contexts", "contexts"),
    }
    label_fields: ClassVar = {"effects": "effect_names", "contexts": "condition_names"}


def make(labels=True, **changes):
    rng = np.random.default_rng(1)
    values = {
        "posterior_mean": rng.normal(size=(3, 2)),
        "lfsr": np.array([[0.1, 0.0], [np.nan, 1.0], [0.5, 1e-300]]),
        "loglik": -12.345678901234567,
        "vloglik": rng.normal(size=3),
        "posterior_cov": rng.normal(size=(3, 2, 2)),
        "condition_names": ("liver", "lung") if labels else None,
        "effect_names": np.array(["rs1", "rs2", "é"]) if labels else None,
        "fitted_g": Prior(
            np.array([0.9, 0.1]), {"identity": np.eye(2), "ones": np.ones((2, 2))}, np.array([0.5])
        ),
        "optim": {"method": "mixsqp", "dual_gap": 1e-9, "path": [1.0, -np.inf], "seconds": 1.0},
        "provenance": Provenance("test", seed=1, seconds=0.25),
    }
    return ShrunkenEffects(**(values | changes))


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("name", ["path", "memory"])
def test_what_is_saved_is_loaded(tmp_path, labels, name):
    url = tmp_path / "r.zarr" if name == "path" else f"memory://{tmp_path.name}/r.zarr"
    result = make(labels)
    result.save(url)
    back = ShrunkenEffects.load(url)
    assert back.allclose(result, rtol=0)
    assert back.provenance == result.provenance
    assert back.condition_names == result.condition_names
    assert back.loglik == result.loglik
    assert back.optim == result.optim
    assert list(back.fitted_g.Ulist) == ["identity", "ones"]
    assert back.fitted_g.usepointmass is True
    assert back.posterior_mean.dtype == np.float64
    assert not labels or back.effect_names.dtype.kind == "U"
    with pytest.raises(OutputError, match="--overwrite"):
        result.save(url)
    result.save(url, overwrite=True)
    nothing = make(posterior_mean=None, vloglik=None, posterior_cov=None, fitted_g=None)
    nothing.save(url, overwrite=True)
    back = ShrunkenEffects.load(url)
    assert back.posterior_mean is back.fitted_g is back.posterior_cov is None
    assert back.allclose(nothing)


def test_a_prior_alone(tmp_path):
    prior = make().fitted_g
    prior.save(tmp_path / "g.zarr")
    assert Prior.load(tmp_path / "g.zarr").allclose(prior, rtol=0)
    assert prior.labels("covariances") == ["identity", "ones"]
    assert read_store(tmp_path / "g.zarr").attributes["schema"] == "plait/prior"
    with pytest.raises(
        FileFormatError, match="is a store of prior; one of shrunken_effects is expected"
    ):
        ShrunkenEffects.load(tmp_path / "g.zarr")
    dataset = prior.to_xarray()
    assert dataset["Ulist"].dims == ("covariances", "contexts", "contexts_2")
    assert dataset["covariances"].values.tolist() == ["identity", "ones"]
    np.testing.assert_array_equal(dataset["grid"], [0.5])


def test_loading_what_was_not_saved_by_a_result(tmp_path):
    write_store(Contents({}), tmp_path / "a.zarr", kind="shrunken_effects")
    with pytest.raises(FileFormatError, match="has no fields"):
        ShrunkenEffects.load(tmp_path / "a.zarr")


def test_arrays_are_read_only_and_the_givers_stay_writable():
    mean = np.zeros((3, 2))
    result = make(posterior_mean=mean)
    with pytest.raises(ValueError, match="read-only"):
        result.posterior_mean[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        result.fitted_g.Ulist["ones"][0, 0] = 1
    assert mean.flags.writeable
    assert freeze("text") == "text"


def test_to_xarray_has_the_labels():
    dataset = make().to_xarray()
    assert dataset["posterior_mean"].sel(effects="rs2", contexts="lung").shape == ()
    assert dataset["posterior_cov"].dims == ("effects", "contexts", "contexts_2")
    assert "effects" not in make(labels=False).to_xarray().coords


def test_long_and_wide_tables():
    result = make()
    long = result.to_frame()
    assert long.columns == ["effect", "context", "posterior_mean", "lfsr"]
    assert long["effect"].to_list() == ["rs1", "rs1", "rs2", "rs2", "é", "é"]
    assert long["context"].to_list() == ["liver", "lung"] * 3
    np.testing.assert_array_equal(long["lfsr"].to_numpy(), result.lfsr.ravel())
    wide = result.to_frame("wide")
    assert wide.columns[:4] == ["effect", "vloglik", "posterior_mean.liver", "posterior_mean.lung"]
    np.testing.assert_array_equal(wide["lfsr.lung"].to_numpy(), result.lfsr[:, 1])
    plain = make(labels=False)
    assert plain.to_frame()["context"].to_list() == [0, 1] * 3
    assert "lfsr.1" in plain.to_frame("wide").columns
    single = make(posterior_mean=None, lfsr=None)
    assert single.to_frame().columns == ["effect", "vloglik"]
    with pytest.raises(NotAvailableError, match="effects x contexts"):
        make(posterior_mean=None, lfsr=None, vloglik=None).to_frame()
    with pytest.raises(OptionError, match="'long' or 'wide'"):
        result.to_frame("tall")


def test_it_prints_for_people():
    result = make()
    assert repr(result) == "ShrunkenEffects(3 effects x 2 contexts)"
    assert "posterior_mean, lfsr" in result.summary()
    assert "test" in result.summary()
    console = Console(width=100)
    with console.capture() as captured:
        console.print(result)
    assert "3 effects x 2 contexts" in captured.get()
    html = result._repr_html_()
    assert "<table" in html
    assert "3 effects x 2 contexts" in html
    assert "<table" not in make(posterior_mean=None, lfsr=None, vloglik=None)._repr_html_()


def test_allclose_compares_numbers_and_labels_but_not_times():
    result = make()
    assert result.allclose(make(provenance=None))
    assert result.allclose(replace(result, optim=result.optim | {"seconds": 9.0}))
    assert result.allclose(replace(result, loglik=result.loglik * (1 + 1e-12)))
    assert not result.allclose(replace(result, loglik=result.loglik * (1 + 1e-6)))
    assert result.allclose(replace(result, loglik=result.loglik * (1 + 1e-6)), rtol=1e-5)
    for changes in (
        {"condition_names": ("liver", "brain")},
        {"condition_names": None},
        {"lfsr": None},
        {"lfsr": result.lfsr[:2]},
        {"optim": {}},
        {"optim": result.optim | {"path": [[1.0], [1.0, 2.0]]}},
        {"fitted_g": replace(result.fitted_g, pi=np.array([0.8, 0.2]))},
        {"fitted_g": None},
    ):
        assert not result.allclose(replace(result, **changes))
    assert not result.allclose(result.fitted_g)


@dataclass(frozen=True, slots=True, eq=False)
class Slotted(Result):
    effects: tuple[str, ...]
    mean: Array
    extra: Array | None = None
    words: Array | None = None
    dims: ClassVar = {"mean": ("effects",), "words": ("effects",)}


def test_slots_labels_named_like_the_dimension_and_arrays_without_dimensions(tmp_path):
    result = Slotted(("a", "b"), np.array([1.0, 2.0]), np.array([[1, 2]]), np.array(["x", "long"]))
    result.save(tmp_path / "s.zarr")
    back = Slotted.load(tmp_path / "s.zarr")
    assert back.allclose(result)
    assert back.extra.dtype == result.extra.dtype
    assert back.effects == ("a", "b")
    assert result.to_frame().to_dict(as_series=False) == {
        "effect": ["a", "b"],
        "mean": [1.0, 2.0],
        "words": ["x", "long"],
    }


def test_what_cannot_be_stored_is_said(tmp_path):
    with pytest.raises(TypeError, match="cannot store a builtin_function_or_method"):
        make(optim={"f": print}).save(tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []
