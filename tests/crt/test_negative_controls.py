import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from plait.crt.negative_controls import (
    build_ntc_group_inputs,
    guide_frequency,
    make_ntc_groups_ensemble,
    make_ntc_groups_matched_by_freq,
)
from plait.crt.ntc_null import (
    combine_fisher,
    combine_stouffer,
    combine_stouffer_abs,
    matched_empirical_p_values,
    matching_bins,
    split_ntc_units,
)
from plait.errors import DataWarning, InputError
from tests.crt.screens import reference_screen
from tests.reference_files import load, reference_file

BOTH = pytest.mark.parametrize("name", ["synth_a", "synth_b"])


def as_inputs(screen):
    return SimpleNamespace(
        G=screen.obsm["guide_assignment"],
        guide_names=screen.uns["guide_names"],
        guide2gene=screen.uns["guide2gene"],
    )


@BOTH
@pytest.mark.parametrize("n_bins", [10, 20])
def test_groups_are_those_of_programde(name, n_bins):
    known = json.loads(reference_file("crt", f"{name}/ntc_groups.json").read_text())[str(n_bins)]
    guides, freq, bins, sigs = build_ntc_group_inputs(
        as_inputs(reference_screen(name)[0]), n_bins=n_bins
    )
    assert guides == known["ntc_guides"]
    assert freq == pytest.approx(known["guide_freq"], rel=1e-12)
    assert bins == known["guide_to_bin"]
    assert sigs == known["real_gene_bin_sigs"]
    ensemble = make_ntc_groups_ensemble(guides, freq, sigs, bins, n_ensemble=3, seed0=7)
    assert ensemble == known["ensemble"]


@BOTH
@pytest.mark.parametrize("seed", range(5))
def test_groups_are_disjoint_matched_and_maximal_without_dropping(name, seed):
    guides, freq, bins, sigs = build_ntc_group_inputs(as_inputs(reference_screen(name)[0]))
    groups = make_ntc_groups_matched_by_freq(
        guides, freq, sigs, bins, seed=seed, drop_remainder=False
    )
    used = [guide for group in groups.values() for guide in group]
    assert groups and len(used) == len(set(used)) == 6 * len(groups)
    allowed = [Counter(signature) for signature in sigs]
    assert all(Counter(bins[guide] for guide in group) in allowed for group in groups.values())
    left = Counter(bins[guide] for guide in set(guides) - set(used))
    assert not any(all(left[b] >= n for b, n in needed.items()) for needed in allowed)


def test_bins_are_halved_where_no_signature_can_be_filled():
    guides = [f"n{i}" for i in range(6)]
    bins = dict.fromkeys(guides, 2)
    with pytest.warns(DataWarning, match="4 frequency bins; groups were matched in 2 bins"):
        groups = make_ntc_groups_ensemble(
            guides, dict.fromkeys(guides, 0.1), [[3, 3]], bins | {"real": 3},
            n_ensemble=2, group_size=2,
        )  # fmt: skip
    assert [len(replicate) for replicate in groups] == [3, 3]
    assert [replicate.n_bins for replicate in groups] == [2, 2]
    with pytest.raises(InputError, match="6 control guides cannot make a group of 7"):
        make_ntc_groups_matched_by_freq(guides, {}.fromkeys(guides, 0.1), [[2] * 7], bins, 7)


def test_frequency_is_prevalence_whatever_the_counts():
    assert guide_frequency(np.array([[3.0, 0], [0, 0], [9, 1], [0, 0]]), ["a", "b"]) == {
        "a": 0.5,
        "b": 0.25,
    }


def test_a_frequency_at_an_inner_edge_is_in_the_lower_bin():
    assigned = np.arange(20)[:, None] < np.array([4, 8, 12, 8])
    inputs = SimpleNamespace(
        G=assigned.astype(int),
        guide_names=["a", "b", "c", "n"],
        guide2gene={"a": "A", "b": "A", "c": "A", "n": "NTC"},
    )
    _, _, bins, sigs = build_ntc_group_inputs(inputs, group_size=3, n_bins=2)
    assert bins == {"a": 0, "b": 0, "c": 1, "n": 0}
    assert sigs == [[0, 0, 1]]


@BOTH
def test_pooled_and_crossfit_p_values_are_those_of_programde(name):
    known, screen = (
        load(f"crt/{name}", "ntc_empirical.npz"),
        load(f"crt/{name}", "deterministic.npz"),
    )
    assert list(known["genes"]) == list(screen["genes"])
    beta, n1, d = screen["betas"], screen["n_treated"], screen["denom"]
    edges = matching_bins(n1, d, n_n1_bins=4, n_d_bins=3)
    real, units = edges.of(n1, d), edges.of(known["unit_n1"], known["unit_denom"])
    null = known["unit_beta"]
    p, _ = matched_empirical_p_values(beta, real, null, units, min_per_bin=25)
    np.testing.assert_allclose(p, known["pooled_fisher_p"], rtol=1e-9)
    a, b = known["ids_A"], known["ids_B"]
    for tested, its_bins, what in ((beta, real, "real"), (null[b], units[b], "ntcB")):
        p, _ = matched_empirical_p_values(tested, its_bins, null[a], units[a], min_per_bin=25)
        np.testing.assert_allclose(p, known[f"pooled_fisher_meta_p_{what}_vs_A"], rtol=1e-9)
        p, _ = matched_empirical_p_values(
            np.abs(tested).max(axis=1, keepdims=True), its_bins,
            np.abs(null[a]).max(axis=1, keepdims=True), units[a],
            min_per_bin=25, two_sided=False,
        )  # fmt: skip
        np.testing.assert_allclose(
            p[:, 0], known[f"pooled_fisher_meta_p_{what}_gene_vs_A"], rtol=1e-9
        )


def test_matched_p_values_are_counts_by_brute_force():
    random = np.random.default_rng(3)
    beta, null = random.normal(size=(15, 2)), random.normal(size=(80, 2))
    bins, null_bins = random.integers(0, 3, (15, 2)), random.integers(0, 3, (80, 2))
    p, info = matched_empirical_p_values(beta, bins, null, null_bins, min_per_bin=12)
    widened = set()
    for i in range(15):
        for radius in range(5):
            near = np.abs(null_bins - bins[i]).sum(axis=1) <= radius
            if near.sum() >= 12:
                break
        if radius:
            widened.add(tuple(bins[i]))
        expected = (1 + (np.abs(null[near]) >= np.abs(beta[i])).sum(axis=0)) / (1 + near.sum())
        np.testing.assert_allclose(p[i], expected, rtol=1e-14)
    assert info["fallback_counts"] == len(widened)


def test_combinations_of_two_halves():
    halves = np.array([0.5, 0.5])
    assert combine_fisher(halves) == pytest.approx(0.5966, abs=1e-4)
    assert combine_stouffer_abs(halves) == pytest.approx(0.3401, abs=1e-4)
    assert combine_stouffer(halves, [1, -1]) == pytest.approx(1.0)
    assert combine_fisher(halves, [False, False]) == 1.0


def test_signed_stouffer_is_calibrated_where_the_absolute_one_is_not():
    random = np.random.default_rng(5)
    p, sign = random.random((2, 40_000)), random.choice([-1.0, 1.0], (2, 40_000))
    # Six standard deviations of the share of 40 000 tests.
    assert abs((combine_stouffer(p, sign) <= 0.05).mean() - 0.05) < 6 * np.sqrt(0.0475 / 40_000)
    assert (combine_stouffer_abs(p) <= 0.05).mean() > 0.08


def test_units_are_split_into_two_halves():
    a, b = split_ntc_units(np.arange(5), frac_A=0.5, seed=1)
    assert (len(a), len(b)) == (2, 3)
    assert sorted([*a, *b]) == list(range(5))
    for ids, share in (([], 0.5), ([1], 0.5), ([1, 2], 1.0)):
        with pytest.raises(InputError):
            split_ntc_units(ids, share)
