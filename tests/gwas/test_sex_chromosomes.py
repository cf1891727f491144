"""Chromosome 23: X of humans, an autosome of others; told by heterozygous males, or by option."""

import logging

import numpy as np
import pytest

from plait.data.phenotypes import SampleTable
from plait.errors import DataWarning, OptionError
from plait.gwas import (
    QualityControl,
    VariantFilter,
    genotype_quality,
    quality_control,
    scan,
    scan_interaction,
)
from plait.gwas.environments_results import EnvironmentsResult
from plait.gwas.interaction_results import InteractionResult
from plait.gwas.passes import _PER_COPY
from plait.gwas.results import AssociationResult
from plait.gwas.sex_chromosomes import haploid_chromosomes, meanings
from tests.gwas.conftest import Dosages, InMemory, as_dosages, draw_calls

N, M = 120, 400
FEMALE = np.arange(N) % 2 == 1
CODED = ["1"] * 250 + ["23"] * 100 + ["24"] * 20 + ["25"] * 10 + ["26"] * 20
NAMED = ["1"] * 250 + ["X"] * 100 + ["Y"] * 20 + ["XY"] * 10 + ["MT"] * 20


def source(chromosomes, males_on_23="hemizygous", sexes=True, noise=0.002):
    random = np.random.default_rng(4)
    calls = draw_calls(random, M, N, missing=0.02)
    if males_on_23 == "hemizygous":
        x = calls[250:350]
        one = (x == 1) & ~FEMALE
        x[one] = np.where(random.random(one.sum()) < noise, 1, 2 * random.integers(0, 2, one.sum()))
    found = InMemory(calls, chromosomes=chromosomes)
    if sexes:
        found.sexes = np.where(FEMALE, 2, 1)
    return found


@pytest.fixture
def random():
    return np.random.default_rng(11)


def notices(caplog):
    return [r.getMessage() for r in caplog.records if getattr(r, "notice", False)]


def test_numbers_of_humans_are_as_good_as_names(caplog):
    """Also with a few heterozygous males, as where both chromosomes share sequence."""
    with caplog.at_level(logging.INFO, "plait.gwas"):
        coded = genotype_quality(source(CODED))
    assert len(notices(caplog)) == 1
    assert "chromosome 23 is taken as X, and 24 to 26 as Y, XY and MT" in notices(caplog)[0]
    named = genotype_quality(source(NAMED))
    for name in ("hardy_weinberg", "inbreeding", "expected_heterozygous", "sample_call_rate"):
        np.testing.assert_array_equal(getattr(coded, name), getattr(named, name))
    assert coded.variant_table().drop("chrom").equals(named.variant_table().drop("chrom"))
    assert np.isfinite(coded.hardy_weinberg[250:350]).all()
    assert np.isnan(coded.hardy_weinberg[350:]).all()


@pytest.mark.parametrize("names", [CODED, NAMED])
def test_y_is_of_males_where_sexes_are_known(names, random):
    """In quality control and in scans; elsewhere females lack calls as anyone else."""
    known, unknown = source(names), source(names, sexes=False)
    on_y = np.flatnonzero(np.isin(names, ["Y", "24"]))
    for genotypes in (known, unknown):
        genotypes.calls[on_y[1:]] = np.where(FEMALE, -1, genotypes.calls[on_y[1:]])
    males, rates = genotypes.calls[:, ~FEMALE], genotypes.calls >= 0
    found = genotype_quality(known)
    expected = (males[on_y] >= 0).mean(axis=1)
    np.testing.assert_allclose(found.variant_call_rate[on_y], expected, rtol=1e-15)
    copies = np.where(males[on_y] >= 0, males[on_y], 0).sum(axis=1)
    rarer = np.minimum(copies, 2 * (males[on_y] >= 0).sum(axis=1) - copies) / 2
    np.testing.assert_array_equal(found.variant_table()["mac"].to_numpy()[on_y], rarer)
    others = np.delete(rates, on_y, axis=0).mean(axis=0)
    expected = np.where(FEMALE, others, rates.mean(axis=0))
    np.testing.assert_allclose(found.sample_call_rate, expected, rtol=1e-14)
    plain = genotype_quality(unknown)
    np.testing.assert_allclose(plain.variant_call_rate, rates.mean(axis=1), rtol=1e-15)
    np.testing.assert_allclose(plain.sample_call_rate, rates.mean(axis=0), rtol=1e-15)
    traits = SampleTable(known.samples, ("t",), random.normal(size=(N, 1)))
    sex = SampleTable(known.samples, ("sex",), FEMALE[:, None].astype(float))
    rules = VariantFilter(min_call_rate=0.8, min_minor_count=1)
    for missing in ("mean", "drop"):
        given = {"variant_filter": rules, "missing_genotypes": missing}
        if missing == "mean":
            both = scan(known, traits, sex, **given)
        else:  # among males their sex does not vary, and no test is left beside it
            with pytest.warns(DataWarning, match="no covariate tells them apart"):
                both = scan(known, traits, **given)
        alone = scan(known, SampleTable(known.samples[~FEMALE], ("t",), traits.values[~FEMALE]),
                     **given)  # fmt: skip
        np.testing.assert_array_equal(np.isfinite(both.se[on_y]), np.isfinite(alone.se[on_y]))
        assert np.isfinite(both.se[on_y]).all()
        np.testing.assert_allclose(both.beta[on_y], alone.beta[on_y], rtol=1e-5)
        np.testing.assert_array_equal(both.n[on_y], N if missing == "mean" else alone.n[on_y])
        if missing == "drop":
            np.testing.assert_allclose(both.se[on_y], alone.se[on_y], rtol=1e-5)
        if names is NAMED:
            assert np.isnan(scan(unknown, traits, sex, **given).se[on_y[1:]]).all()


def test_nothing_on_x_is_removed_for_its_males():
    rules = QualityControl(population="outbred", min_frequency=None)
    removed = quality_control(source(CODED), rules).removed_variants["Hardy-Weinberg p < 1e-06"]
    assert removed.sum() == 0
    wrong = quality_control(source(CODED), rules, sex_chromosomes="none")
    assert wrong.removed_variants["Hardy-Weinberg p < 1e-06"][250:350].sum() > 50
    # Controls of one sex do not change what chromosome 23 is.
    men = source(CODED).samples[~FEMALE]
    checked = quality_control(source(CODED), rules, controls=men)
    assert checked.removed_variants["Hardy-Weinberg p < 1e-06 in controls"].sum() == 0


@pytest.mark.parametrize("chromosomes", [CODED, ["1"] * 250 + ["23"] * 100 + ["29"] * 50])
def test_the_autosome_23_of_others_stays_one(chromosomes, caplog):
    with caplog.at_level(logging.INFO, "plait.gwas"):
        found = genotype_quality(source(chromosomes, males_on_23="as females"))
    assert np.isfinite(found.hardy_weinberg).all()
    assert notices(caplog) == []


def test_beyond_26_and_beside_x_numbers_are_autosomes():
    for other in ("29", "X"):
        names = ["1"] * 250 + ["23"] * 100 + [other] * 50
        assert meanings(source(names))["23"] == "23"


def test_inbred_lines_without_heterozygotes_tell_nothing():
    lines = source(CODED)
    lines.calls[lines.calls == 1] = 2
    assert meanings(lines)["23"] == "23"


def test_unknown_sexes_are_said_and_the_option_decides(caplog):
    genotypes = source(["chr" + name for name in CODED], sexes=False)
    with caplog.at_level(logging.INFO, "plait.gwas"):
        found = genotype_quality(genotypes)
    assert np.isfinite(found.hardy_weinberg).all()
    assert "numbered 23, 24, 25, 26 are taken as autosomes" in notices(caplog)[0]
    human = genotype_quality(genotypes, sex_chromosomes="human")
    assert np.isnan(human.hardy_weinberg[250:]).all()
    assert meanings(genotypes, "human")["chr25"] == "XY"
    with pytest.raises(OptionError, match="'auto', 'human' or 'none'"):
        genotype_quality(genotypes, sex_chromosomes="dog")


@pytest.mark.parametrize("names", [CODED, NAMED])
def test_scans_of_x_ask_for_the_sex(names, random):
    """Where both sexes are among the samples and no covariates say which is which."""
    genotypes = source(names)
    samples, male = genotypes.samples, (~FEMALE).astype(float)
    traits = SampleTable(samples, ("t",), random.normal(size=(N, 1)))
    age = random.normal(size=(N, 1))
    other = SampleTable(samples, ("age",), age)
    told = "in 60 males and 60 females, and no covariate tells them apart"
    with pytest.warns(DataWarning, match=told):
        scan(genotypes, traits)
    with pytest.warns(DataWarning, match=told):
        scan(genotypes, traits, other)
    with pytest.warns(DataWarning, match=told):
        scan_interaction(genotypes, traits, other)
    both = np.column_stack([age, age[:, 0] - 3 * male])
    scan(genotypes, traits, SampleTable(samples, ("age", "both"), both))
    scan(genotypes, SampleTable(samples[~FEMALE], ("t",), traits.values[~FEMALE]))
    for silent in (source(names, sexes=False), source([str(j // 20) for j in range(M)])):
        scan(silent, traits)
    if names is CODED:
        scan(source(names, "as females"), traits)


def test_what_a_scan_of_x_without_the_sex_finds(random):
    """Too many small p-values of cases that most are men, among 15 % men."""
    n, m, k = 1500, 300, 40
    male = np.arange(n) < 0.15 * n
    calls = draw_calls(random, m, n)
    calls[:, male] = 2 * (random.random((m, male.sum())) < 0.5)
    genotypes = InMemory(calls, chromosomes=["X"] * m)
    genotypes.sexes = np.where(male, 1, 2)
    risk = np.where(male, 0.5, 0.08)[:, None]
    cases = (random.random((n, k)) < risk).astype(float)
    traits = SampleTable(genotypes.samples, tuple(f"t{i}" for i in range(k)), cases)
    sex = SampleTable(genotypes.samples, ("sex",), genotypes.sexes[:, None])
    with pytest.warns(DataWarning, match="in 225 males and 1,275 females"):
        found = scan(genotypes, traits, model="logistic")
    assert (found.log10p < -2).mean() > 0.02
    assert (scan(genotypes, traits, sex, model="logistic").log10p < -2).mean() < 0.0135


def test_dosages_tell_what_23_is_as_calls_do(random):
    calls = source(CODED)
    dosages = Dosages(as_dosages(calls.calls))
    dosages._variants, dosages.sexes = calls.variants, calls.sexes
    assert haploid_chromosomes(dosages) == haploid_chromosomes(calls) == ["24", "26"]
    traits = SampleTable(calls.samples, ("t",), random.normal(size=(N, 1)))
    with pytest.warns(DataWarning, match="in 60 males and 60 females"):
        found = scan(dosages, traits)
    with pytest.warns(DataWarning, match="in 60 males and 60 females"):
        expected = scan(calls, traits)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1", "chrY", "chrM", "XY"], ["chrY", "chrM"]),
        (["1", "24", "26"], []),  # nothing says whose these numbers are
        (["1", "23", "24", "29"], []),
    ],
)
def test_which_chromosomes_are_haploid(names, expected):
    assert haploid_chromosomes(source([names[j * len(names) // M] for j in range(M)])) == expected


def test_every_effect_has_a_power_of_the_unit():
    for kind in (AssociationResult, InteractionResult, EnvironmentsResult):
        of_p = {name for name in kind.statistics if name.startswith("log10p")}
        effects = {*kind.statistics, *kind.dims} & set(_PER_COPY)
        assert {n for n in kind.statistics if n not in of_p} <= effects
        assert not of_p & set(_PER_COPY)


MODELS = ["linear", "logistic", "mixed", "whole-genome", "whole-genome-logistic"]


@pytest.mark.parametrize("model", [*MODELS, "interaction", "environments"])
def test_effects_on_haploid_chromosomes_are_of_one_copy(model, random, tmp_path):
    """Twice those of a diploid with 0 and 2 copies, to the bit, with the same p-values."""
    calls = draw_calls(random, M, N)
    calls[300:] = 2 * (calls[300:] > 0)
    traits = random.normal(size=(N, 2))
    given = SampleTable([f"s{i}" for i in range(N)], ("a", "b"), traits)
    if "logistic" in model:
        given = SampleTable(given.samples, given.names, (traits > 0).astype(float))
    parts = ["1"] * 150 + ["2"] * 150
    diploid = InMemory(calls, chromosomes=parts + ["7"] * 60 + ["8"] * 40)
    haploid = InMemory(calls, chromosomes=parts + ["Y"] * 60 + ["chrM"] * 40)

    def found(genotypes, **more):
        if model in MODELS:
            return scan(genotypes, given, model=model, **everything, **more)
        e = random_state.normal(size=(N, 1 if model == "interaction" else 2))
        e = SampleTable(given.samples, tuple(f"e{k}" for k in range(e.shape[1])), e)
        return scan_interaction(genotypes, given, e, **everything, **more)

    # By copies of the rarer allele, of which haploids have half as many, nothing is left out.
    everything = {"variant_filter": VariantFilter(min_minor_count=1)}

    results = []
    for genotypes, more in ((diploid, {}), (haploid, {}), (haploid, {"out": tmp_path / "a.zarr"})):
        random_state = np.random.default_rng(5)
        results.append(found(genotypes, **more))
    expected = results[0]
    for result in results[1:]:
        for name in {*expected.dims} & {*_PER_COPY, *expected.statistics, "n", "frequency"}:
            ours, theirs = getattr(result, name)[:], getattr(expected, name)
            unit = 2.0 ** _PER_COPY.get(name, 0)
            np.testing.assert_array_equal(ours[:300], theirs[:300])
            np.testing.assert_array_equal(ours[300:], unit * theirs[300:])
            assert np.isfinite(theirs[300:]).mean() > 0.5
