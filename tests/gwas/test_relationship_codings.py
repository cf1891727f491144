"""Relationships by dominance and by shares of alleles, against every pair by itself."""

import numpy as np
import pytest

from plait import gwas
from plait.cli.main import main
from plait.data.phenotypes import SampleTable
from plait.errors import OptionError
from plait.gwas import close_relatives, relationship, relationship_matrix
from plait.io import read_relationships
from plait.io.plink import write_bed
from tests.gwas.conftest import Dosages, InMemory, as_dosages, draw_calls

CHROMOSOMES = ["1"] * 900 + ["2"] * 600 + ["3"] * 1000


@pytest.fixture(scope="module", params=[0.0, 0.1])
def source(request):
    calls = draw_calls(np.random.default_rng(4), 2500, 37, request.param)
    calls[5], calls[1700] = 2, 0
    return InMemory(calls, chromosomes=CHROMOSOMES)


def shares(calls):
    """The mean of 1 - |g - g'| / 2 over the variants with calls of both."""
    n = calls.shape[1]
    matrix = np.empty((n, n))
    for i in range(n):
        for k in range(n):
            both = (calls[:, i] >= 0) & (calls[:, k] >= 0)
            apart = np.abs(calls[both, i].astype(int) - calls[both, k])
            matrix[i, k] = np.mean(1 - apart / 2)
    return matrix


def dominance(calls):
    """Products of deviations as their table has them, a missing one 0."""
    f = np.array([row[row >= 0].mean() / 2 for row in calls])
    table = np.column_stack([-2 * f**2, 2 * f * (1 - f), -2 * (1 - f) ** 2, np.zeros(len(f))])
    h = np.take_along_axis(table, np.where(calls < 0, 3, calls), axis=1)
    return h.T @ h / np.sum((2 * f * (1 - f)) ** 2)


@pytest.mark.parametrize(("method", "direct"), [("ibs", shares), ("dominance", dominance)])
def test_every_pair_by_itself(source, method, direct, monkeypatch):
    varies = np.array([len(set(row[row >= 0])) > 1 for row in source.calls])
    chromosomes = np.array(CHROMOSOMES)
    found = relationship_matrix(source, method, min_frequency=0.0)
    assert found.n_variants.sum() == varies.sum() < 2500
    tolerance = 1e-12 if method == "ibs" else 2e-6
    for without in (None, "2"):
        used = source.calls[varies & (chromosomes != without)]
        np.testing.assert_allclose(found.matrix(without), direct(used), atol=tolerance)
    monkeypatch.setattr(relationship, "_PANEL", 16)
    alone, several = (
        relationship_matrix(source, method, min_frequency=0.0, threads=threads).matrix()
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(alone, several)
    np.testing.assert_allclose(alone, found.matrix(), atol=tolerance)
    exchanged = InMemory(np.where(source.calls < 0, -1, 2 - source.calls), None, CHROMOSOMES)
    other = relationship_matrix(exchanged, method, min_frequency=0.0).matrix()
    np.testing.assert_allclose(other, found.matrix(), atol=tolerance)


def test_shares_of_alleles_are_between_0_and_1(source):
    matrix = relationship_matrix(source, "ibs").matrix()
    np.testing.assert_array_equal(np.diagonal(matrix), 1)
    assert 0 < matrix.min() < 0.9
    one = relationship_matrix(InMemory(np.array([[0, 2, 1]])), "ibs").matrix()
    np.testing.assert_array_equal(one, [[1, 0, 0.5], [0, 1, 0.5], [0.5, 0.5, 1]])


def test_dominance_is_no_copy_of_the_additive_relationships():
    """In Hardy-Weinberg proportions of 2,000 variants, relationships of strangers are apart."""
    source = InMemory(draw_calls(np.random.default_rng(9), 2000, 200))
    below = np.tril_indices(200, -1)
    additive, by_dominance = (
        relationship_matrix(source, method).matrix() for method in ("standardised", "dominance")
    )
    assert np.diagonal(by_dominance).mean() == pytest.approx(1, abs=0.02)
    # 19,900 pairs: 5 standard errors of a correlation of 0.
    assert abs(np.corrcoef(additive[below], by_dominance[below])[0, 1]) < 5 / 19_900**0.5


def test_a_mixed_scan_takes_them():
    random = np.random.default_rng(1)
    source = InMemory(draw_calls(random, 300, 60))
    traits = SampleTable(source.samples, ("y",), random.normal(size=(60, 1)))
    given = relationship_matrix(source, "dominance")
    found = gwas.scan(source, traits, model="mixed", relationships=given)
    assert found.n_tested > 200
    assert 0 <= found.h2[0] < 1


@pytest.mark.parametrize("method", ["ibs", "dominance"])
def test_what_is_refused(source, method):
    dosages = Dosages(as_dosages(source.calls))
    with pytest.raises(OptionError, match=rf"'{method}', which is of hard calls, .* are dosages"):
        relationship_matrix(dosages, method)
    with pytest.raises(OptionError, match=rf"'{method}', which does not tell degrees of relatives"):
        close_relatives(relationship_matrix(source, method))


def test_the_command(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_bed("g.bed", [source.calls], source.variants, source.samples)
    for method in ("ibs", "dominance"):
        command = f"gwas kinship --geno g.bed --method {method} --min-call-rate 0 --out {method}"
        assert main(command.split()) == 0
        said = capsys.readouterr().out
        assert "own relationship" in said and "relatives:" not in said
        expected = relationship_matrix(source, method)
        written = read_relationships(method)
        np.testing.assert_allclose(written.matrix, expected.matrix(), atol=1e-6)
        np.testing.assert_array_equal(written.n_variants, expected.pair_counts())
