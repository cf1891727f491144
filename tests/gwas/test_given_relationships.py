"""Mixed scans with relationships that the user gives."""

import numpy as np
import pandas
import polars as pl
import pytest

from plait.data.phenotypes import SampleTable
from plait.errors import InputError, InputTypeError, LabelError, OptionError
from plait.gwas import VariantFilter, relationship_matrix, scan
from plait.gwas.given_relationships import relationships_of
from plait.io.relationship_files import (
    RelationshipFile,
    read_relationship_table,
    write_relationships,
)
from tests.gwas.conftest import InMemory, draw_calls

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)


def table(values, prefix="t"):
    names = tuple(f"{prefix}{i}" for i in range(values.shape[1]))
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), names, values)


@pytest.fixture
def study():
    """90 samples in families of three, two traits that follow them."""
    random = np.random.default_rng(8)
    calls = draw_calls(random, 40, 90, missing=0.02)
    family = np.arange(90) // 3
    K = 0.5 * np.equal.outer(family, family) + 0.5 * np.eye(90)
    traits = random.normal(size=(30, 2))[family] + random.normal(size=(90, 2))
    return InMemory(calls), table(traits), K


def names(n):
    return np.array([f"s{i}" for i in range(n)])


def dense(y, X, K, h2):
    """Slope, error of the last column by generalised least squares."""
    inverse = np.linalg.inv(h2 * K + (1 - h2) * np.eye(len(K)))
    gram = X.T @ inverse @ X
    b = np.linalg.solve(gram, X.T @ inverse @ y)
    e = y - X @ b
    variance = e @ inverse @ e / (len(y) - X.shape[1])
    return b[-1], np.sqrt(variance * np.linalg.inv(gram)[-1, -1])


def same(found, expected):
    """Shares are found to 1e-8, and slopes to that many of their errors, also those near 0."""
    for name in ("se", "h2"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    assert (np.abs(found.beta - expected.beta) < 1e-6 * expected.se).all()
    np.testing.assert_allclose(found.log10p, expected.log10p, rtol=1e-5, atol=1e-6)


def test_against_dense_algebra(study):
    genotypes, traits, K = study
    given = RelationshipFile(names(90), names(90), 1.7 * K)
    options = {"model": "mixed", "exact_below": 0, "variant_filter": ALL}
    found = scan(genotypes, traits, relationships=given, **options)
    assert (found.h2 > 0.05).any()
    assert found.provenance.options["relationships"] == "given"
    assert not found.counts_own_chromosome
    for t in range(2):
        for j in range(40):
            call = genotypes.calls[j].astype(float)
            g = np.where(call < 0, call[call >= 0].mean(), call)
            X = np.column_stack([np.ones(90), g])
            beta, se = dense(traits.values[:, t], X, K, found.h2[t])
            assert found.beta[j, t] == pytest.approx(beta, rel=1e-4, abs=1e-6)
            assert found.se[j, t] == pytest.approx(se, rel=1e-4)


def test_every_way_to_give_them(study, tmp_path):
    genotypes, traits, K = study
    order = np.random.default_rng(0).permutation(100)
    wide = np.eye(100)
    wide[:90, :90] = K
    shuffled = wide[np.ix_(order, order)]
    own = names(100)[order]
    options = {"model": "mixed", "variant_filter": ALL}
    expected = scan(
        genotypes, traits, relationships=RelationshipFile(own, own, shuffled), **options
    )
    write_relationships(tmp_path / "k", shuffled, own, 500)
    frame = pl.DataFrame({"IID": own} | dict(zip(own.tolist(), shuffled.T, strict=True)))
    frame.select("IID", *own[::-1].tolist()).write_csv(tmp_path / "k.csv")
    frame.write_parquet(tmp_path / "k.parquet")
    indexed = pandas.DataFrame(shuffled, index=own, columns=own)
    for given in (
        tmp_path / "k", str(tmp_path / "k.grm.bin"), tmp_path / "k.csv", tmp_path / "k.parquet",
        frame, indexed,
    ):  # fmt: skip
        same(scan(genotypes, traits, relationships=given, **options), expected)
    computed = relationship_matrix(genotypes)
    plain = scan(genotypes, traits, loco=False, **options)
    same(scan(genotypes, traits, relationships=computed, **options), plain)
    assert plain.counts_own_chromosome
    stored = scan(genotypes, traits, relationships=frame, out=tmp_path / "a.zarr", **options)
    assert stored.allclose(expected, rtol=1e-12)


def test_unrelated_is_ordinary_regression_to_1e8(study):
    genotypes, traits, _ = study
    given = RelationshipFile(names(90), names(90), np.eye(90))
    options = {"model": "mixed", "variant_filter": ALL, "exact_below": 1, "precision": "double"}
    found = scan(genotypes, traits, relationships=given, **options)
    plain = scan(genotypes, traits, variant_filter=ALL, precision="double")
    np.testing.assert_allclose(found.t, plain.t, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.log10p, plain.log10p, rtol=1e-8, atol=1e-8)


def test_at_the_boundary_it_is_ordinary_regression_to_1e8(study):
    """Siblings that differ more than strangers: no variant lifts the share from 0."""
    genotypes, _, K = study
    random = np.random.default_rng(3)
    values = random.normal(size=(30, 3, 2))
    values -= 0.97 * values.mean(axis=1, keepdims=True)
    traits = table(values.reshape(90, 2))
    given = RelationshipFile(names(90), names(90), K)
    options = {"model": "mixed", "variant_filter": ALL, "exact_below": 1, "precision": "double"}
    found = scan(genotypes, traits, relationships=given, **options)
    assert (found.h2 == 0).all()
    plain = scan(genotypes, traits, variant_filter=ALL, precision="double")
    np.testing.assert_allclose(found.t, plain.t, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.log10p, plain.log10p, rtol=1e-8, atol=1e-8)


def test_traits_on_different_samples(study):
    genotypes, traits, K = study
    values = traits.values.copy()
    values[:9, 1] = np.nan
    given = RelationshipFile(names(90), names(90), K)
    options = {"model": "mixed", "variant_filter": ALL, "relationships": given}
    found = scan(genotypes, table(values), **options)
    alone = scan(genotypes, table(values[:, 1:]), **options)
    np.testing.assert_allclose(found.t[:, 1], alone.t[:, 0], rtol=1e-5)


def test_a_few_small_negative_eigenvalues_are_bent(study):
    genotypes, traits, K = study
    values, vectors = np.linalg.eigh(K)
    values[0] = -0.01
    bent = relationships_of(
        RelationshipFile(names(90), names(90), vectors * values @ vectors.T), names(90)
    ).matrix()
    eigenvalues = np.linalg.eigvalsh(bent)
    assert -1e-9 < eigenvalues[0] < 1e-9
    assert np.diagonal(bent).mean() == pytest.approx(1)
    values[0] = -0.2
    wrong = RelationshipFile(names(90), names(90), vectors * values @ vectors.T)
    with pytest.raises(InputError, match=r"not positive semidefinite: .* -0\.2"):
        scan(genotypes, traits, model="mixed", relationships=wrong)


def test_bad_input(study):
    genotypes, traits, K = study
    given = RelationshipFile(names(90), names(90), K)
    with pytest.raises(OptionError, match="no chromosome can be left out of"):
        scan(genotypes, traits, model="mixed", relationships=given, loco=True)
    with pytest.raises(OptionError, match="model is 'linear'"):
        scan(genotypes, traits, relationships=given)
    few = RelationshipFile(names(80), names(80), K[:80, :80])
    with pytest.raises(LabelError, match=r"10 of the 90 samples .* not among the 80 .* 's80'"):
        scan(genotypes, traits, model="mixed", relationships=few)
    lop = K.copy()
    lop[3, 5] += 0.1
    for wrong, message in (
        (lop, "not symmetric: that of 's3' and 's5'"),
        (np.where(K == 0.5, np.nan, K), "is missing or infinite"),
        (-K, "with themselves are -1 in the mean"),
    ):
        with pytest.raises(InputError, match=message):
            relationships_of(RelationshipFile(names(90), names(90), wrong), names(90))
    with pytest.raises(InputTypeError, match="type ndarray"):
        scan(genotypes, traits, model="mixed", relationships=K)
    square = pl.DataFrame({"IID": ["a", "b"], "a": [1.0, 0.5], "c": [0.5, 1.0]})
    with pytest.raises(LabelError, match="'b' is in one of them only"):
        read_relationship_table(square)
