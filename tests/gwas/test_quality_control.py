"""Rules of quality against applying them by hand, one after another."""

import numpy as np
import pytest

from plait.errors import InputError, LabelError, OptionError
from plait.gwas import QualityControl, genotype_quality, hardy_weinberg_p, quality_control
from tests.gwas.conftest import InMemory, draw_calls


@pytest.fixture(scope="module")
def source():
    random = np.random.default_rng(5)
    calls = draw_calls(random, 900, 80, missing=0.004)
    calls[3] = 2
    calls[4, 20:] = -1
    calls[5, 1:] = 0
    calls[5, 0] = 1
    calls[6] = np.where(np.arange(80) % 2, 0, 2)  # no heterozygotes
    calls[200:, 11] = -1
    calls[100:190, 12] = -1
    return InMemory(calls, chromosomes=["1"] * 500 + ["2"] * 400)


def by_hand(calls, rules, controls=slice(None)):
    """Return variants and samples that are left, and how many each rule removes."""
    counts = {}
    rows, columns = np.arange(len(calls)), np.arange(calls.shape[1])

    def keep_rows(name, bad):
        nonlocal rows
        counts[name] = int(bad.sum())
        rows = rows[~bad]

    keep_rows("call rate", (calls >= 0).mean(axis=1) < rules.min_call_rate)
    few = (calls[rows] >= 0).mean(axis=0) < rules.min_sample_call_rate
    counts["samples"] = int(few.sum())
    columns = columns[~few]

    def minor():
        part = calls[np.ix_(rows, columns)]
        copies = np.where(part >= 0, part, 0).sum(axis=1)
        called = (part >= 0).sum(axis=1)
        return np.minimum(copies, 2 * called - copies), called

    keep_rows("monomorphic", minor()[0] == 0)
    if rules.min_minor_count is not None:
        keep_rows("count", minor()[0] < rules.min_minor_count)
    if rules.min_frequency is not None:
        keep_rows("frequency", minor()[0] / (2 * minor()[1]) < rules.min_frequency)
    if rules.population == "outbred":
        inside = columns[np.isin(columns, np.arange(calls.shape[1])[controls])]
        part = calls[np.ix_(rows, inside)]
        p = hardy_weinberg_p(*((part == k).sum(axis=1) for k in range(3)))
        keep_rows("hwe", p < rules.min_hardy_weinberg)
    return rows, columns, list(counts.values())


@pytest.mark.parametrize(
    "rules",
    [
        QualityControl(),
        QualityControl(min_minor_count=3, min_frequency=0.1, population="outbred"),
        QualityControl(0.99, 0.97, population="outbred", min_hardy_weinberg=0.01),
    ],
)
@pytest.mark.parametrize("controls", [None, slice(5, 60)])
def test_rules_are_applied_one_after_another(source, rules, controls):
    names = None if controls is None else source.samples[controls].tolist()
    found = quality_control(source, rules, controls=names)
    rows, columns, counts = by_hand(source.calls, rules, controls or slice(None))
    np.testing.assert_array_equal(np.flatnonzero(found.kept_variants), rows)
    np.testing.assert_array_equal(np.flatnonzero(found.kept_samples), columns)
    told = {"variants": found.removed_variants, "samples": found.removed_samples}
    own = [int(flags.sum()) for flags in told["variants"].values()]
    own.insert(1, int(next(iter(told["samples"].values())).sum()))
    assert own == counts
    assert not np.logical_and.reduce(list(told["variants"].values())).any()
    kept = found.select(source)
    np.testing.assert_array_equal(kept.read(dtype=np.int8), source.calls[np.ix_(rows, columns)])


def test_a_sample_is_judged_by_the_variants_that_are_left(source):
    """One whose genotypes are missing where everyone's are is as good as the others."""
    calls = np.ones((20, 40), dtype=np.int8)
    calls[:, ::2] = 0
    calls[:5] = -1
    calls[5:8, 0] = -1
    found = quality_control(InMemory(calls))
    assert list(map(int, np.flatnonzero(~found.kept_samples))) == [0]  # 12 of 15
    assert "call rate < 0.95" in found.removed_variants


def test_what_it_says(source):
    found = quality_control(source, QualityControl(min_minor_count=3, population="outbred"))
    text = found.summary()
    assert "variants: 900; removed 1 by call rate < 0.95, 1 by monomorphic, 1 by" in text
    assert "by minor allele count < 3, 1 by Hardy-Weinberg p < 1e-06; kept 896" in text
    assert "samples: 80; removed 2 by call rate < 0.9; kept 78" in text
    assert "F of these samples: median" in text
    variants, samples = found.variant_table(), found.sample_table()
    assert variants["removed_by"][3:8].to_list() == [
        "monomorphic", "call rate < 0.95", "minor allele count < 3", "Hardy-Weinberg p < 1e-06",
        None,
    ]  # fmt: skip
    assert samples["removed_by"].drop_nulls().to_list() == ["call rate < 0.9"] * 2
    assert variants.drop("removed_by").equals(genotype_quality(source).variant_table())


def test_rules_can_be_switched_off(source):
    found = quality_control(source, QualityControl(None, None, None, None, None, "outbred"))
    assert list(found.removed_variants) == ["monomorphic"]
    assert found.removed_samples == {}
    assert found.kept_samples.all()


def test_errors(source):
    with pytest.raises(InputError, match=r"no variant is left; removed: 0 by .*, 3 by monomorphic"):
        quality_control(InMemory(np.ones((3, 5), dtype=np.int8) * 2))
    calls = np.full((4, 6), -1, dtype=np.int8)
    with pytest.raises(InputError, match="removed: 4 by call rate < 0"):
        quality_control(InMemory(calls))
    with pytest.raises(InputError, match="no sample is left"):
        quality_control(InMemory(calls), QualityControl(min_call_rate=None))
    rules = QualityControl(population="outbred")
    with pytest.raises(LabelError, match="nobody"):
        quality_control(source, rules, controls=["nobody"])
    for wrong in (
        {"population": "inbred"},
        {"min_call_rate": 95},
        {"min_sample_call_rate": -1},
        {"min_frequency": 0.7},
        {"min_hardy_weinberg": 2},
    ):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            QualityControl(**wrong)
