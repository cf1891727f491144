"""Scans of files whose chromosomes alternate: those of the file in order, in the file's order."""

import numpy as np
import pytest

from plait.data.phenotypes import SampleTable
from plait.gwas import AssociationResult, mixed, scan, stored_scan
from tests.gwas.conftest import InMemory, draw_calls

N, M = 90, 1500
STATISTICS = ("beta", "se", "log10p", "n", "frequency")
LABELS = ("chrom", "pos", "id", "oa", "ea")


@pytest.fixture(scope="module")
def study():
    """Genotypes whose chromosomes alternate, the same in order, their order, and traits."""
    random = np.random.default_rng(3)
    calls = draw_calls(random, M, N, missing=0.01)
    labels = np.array(["2", "1", "MT"])[random.integers(0, 3, M)]
    order = np.concatenate([np.flatnonzero(labels == name) for name in dict.fromkeys(labels)])
    ids = np.array([f"v{j}" for j in range(M)])
    values = random.normal(size=(N, 2)) + calls[7][:, None]
    values[3:9, 1] = np.nan
    alternating, in_order = (
        InMemory(calls[rows], chromosomes=labels[rows], ids=ids[rows])
        for rows in (np.arange(M), order)
    )
    return alternating, in_order, order, SampleTable(alternating.samples, ("a", "b"), values)


def options_of(model):
    return {"model": model} | ({"missing_genotypes": "drop"} if model == "whole-genome" else {})


@pytest.mark.parametrize("model", ["linear", "mixed", "whole-genome"])
def test_the_bits_of_the_file_in_order(study, model, tmp_path):
    alternating, in_order, order, traits = study
    assert len(alternating.variants.chromosomes) > 900
    expected = scan(in_order, traits, **options_of(model))
    found = scan(alternating, traits, **options_of(model))
    assert np.isfinite(found.log10p).sum() > M
    for name in STATISTICS:
        np.testing.assert_array_equal(getattr(found, name)[order], getattr(expected, name))
    np.testing.assert_array_equal(found.id, [f"v{j}" for j in range(M)])
    np.testing.assert_array_equal(found.V0, expected.V0)
    assert (found.filtered, found.checks) == (expected.filtered, expected.checks)
    stored = scan(alternating, traits, out=tmp_path / "a.zarr", **options_of(model))
    for name in (*STATISTICS, *LABELS):
        np.testing.assert_array_equal(getattr(stored, name)[:], getattr(found, name))
        assert getattr(stored, name)[:].dtype.kind in {getattr(found, name).dtype.kind, "O"}
    assert stored.summary() == found.summary()
    assert stored.checks == found.checks


def test_a_chromosome_is_scanned_at_once(study, monkeypatch):
    alternating, *_, traits = study
    spans, plain = [], mixed.MixedGroup.run

    def counted(group, block):
        spans.append(len(block))
        return plain(group, block)

    monkeypatch.setattr(mixed.MixedGroup, "run", counted)
    scan(alternating, traits, model="mixed")
    assert sum(spans) == 2 * M  # two sets of samples
    assert len(spans) < 20


def test_an_interrupted_scan_goes_on(study, tmp_path, monkeypatch):
    alternating, *_, traits = study
    expected = scan(alternating, traits, model="mixed")
    written, plain = [], stored_scan.write_region

    def stopping(target, rows, arrays):
        if len(written) == 1:
            raise RuntimeError("stopped")
        written.append(rows)
        return plain(target, rows, arrays)

    given = {"model": "mixed", "out": tmp_path / "a.zarr", "threads": 1}
    monkeypatch.setattr(stored_scan, "write_region", stopping)
    with pytest.raises(RuntimeError, match="stopped"):
        scan(alternating, traits, **given)
    again = []

    def counting(target, rows, arrays):
        again.append(rows)
        return plain(target, rows, arrays)

    monkeypatch.setattr(stored_scan, "write_region", counting)
    scan(alternating, traits, **given)
    assert len(again) == 2  # of three chromosomes
    assert written[0] not in again
    found = AssociationResult.open(tmp_path / "a.zarr")
    for name in (*STATISTICS, *LABELS):
        np.testing.assert_array_equal(getattr(found, name)[:], getattr(expected, name))
    assert found.checks == expected.checks
