import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.crt.resampling import StratifiedResampler, index_lists
from plait.crt.seeds import UnitStream
from plait.crt.strata import (
    StrataOptions,
    Stratification,
    compute_bins,
    first_appearance_codes,
    stratification_values,
)
from plait.errors import InputError, LabelError, OptionError, ShapeError
from tests.crt.cases import reference_screen
from tests.reference_files import load

SCREENS = ["synth_a", "synth_b"]
SETTINGS = {
    "default": {},
    "nobatch": {"stratify_by_batch": False},
    "burden": {"n_bins": 10, "burden_key": "burden"},
}


def reference_strata(name, setting, **more):
    """Return a reference unit's strata, its treated cells and what programDE found."""
    screen, known = reference_screen(name), load(f"crt/{name}", "strata.npz")
    # The batch is one of the z-scored columns of the design.
    names = list(screen.known["covar_cols"])
    batch = screen.design[:, 1 + names.index("batch_b1")]
    options = StrataOptions.from_mapping(SETTINGS.get(setting, {}) | more)
    covariates = {"batch": batch, "burden": screen.known["burden"]}
    stratification = Stratification(options, *stratification_values(options, covariates))
    cells = screen.cells[str(known["gene"])]
    found = stratification.strata(known["p_hat"], cells)
    parts = {k.split("__")[1]: v for k, v in known.items() if k.startswith(f"{setting}__")}
    return stratification, found, cells, known["p_hat"], parts


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_strata_match_programde(name, setting):
    stratification, found, _, p_hat, known = reference_strata(name, setting)
    options = stratification.options
    bins, n_bins, edges = compute_bins(p_hat, options.n_bins)
    assert n_bins == found.propensity_bins == known["n_bins_eff"]
    np.testing.assert_array_equal(bins, known["bin_id"])
    np.testing.assert_allclose(edges, known["edges"], rtol=1e-12)
    if options.burden_key:
        np.testing.assert_array_equal(stratification.burden_bins, known["burden_bin"])
        np.testing.assert_allclose(stratification.burden_edges, known["burden_edges"], rtol=1e-12)
    np.testing.assert_array_equal(found.stratum, known["stratum"])
    np.testing.assert_array_equal(found.sizes, known["n"])
    np.testing.assert_array_equal(found.treated, known["treated"])


@pytest.mark.parametrize(("name", "least"), [("synth_a", 40), ("synth_b", 30)])
def test_small_strata_are_merged_as_in_programde(name, least):
    """The option is not in the file: it is the size of the smallest stratum left alone."""
    _, found, _, _, known = reference_strata(name, "big_min", min_stratum_size=least)
    np.testing.assert_array_equal(found.stratum, known["stratum"])
    np.testing.assert_array_equal(found.sizes, known["n"])


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_inclusion_is_as_often_as_in_programde(name, setting):
    """programDE's frequencies over 200 resamples against ours: the same share of each cell."""
    _, found, _, _, known = reference_strata(name, setting)
    draws = 2000
    resampler = StratifiedResampler(found.stratum, found.treated, UnitStream(3, "unit"))
    _, drawn = index_lists(resampler, draws)
    share = (found.treated / found.sizes)[found.stratum]
    variance = share * (1 - share)
    ours = np.bincount(drawn, minlength=len(share)) / draws
    theirs = known["peer_inclusion_freq_B200"]
    varies = variance > 0
    np.testing.assert_array_equal(ours[~varies], share[~varies])
    for frequency, resamples in ((ours, draws), (theirs, 200)):
        z = (frequency - share)[varies] / np.sqrt(variance[varies] / resamples)
        # A binomial's z^2 has mean 1 and this variance. Cells of a stratum make up for each other:
        # in the smallest one, of two, they have the same z^2, which doubles the mean's variance.
        inner = variance[varies]
        spread = np.sqrt(2 * np.mean(2 + (1 - 6 * inner) / (resamples * inner)) / len(inner))
        assert abs(np.mean(z**2) - 1) < 5 * spread
    z = (ours - theirs)[varies] / np.sqrt(variance[varies] * (1 / draws + 1 / 200))
    assert np.abs(z).max() < 8


def test_a_constant_has_one_bin():
    bins, n_bins, edges = compute_bins(np.full(9, 0.3), 20)
    assert n_bins == 1
    np.testing.assert_array_equal(edges, [0.3])
    np.testing.assert_array_equal(bins, 0)
    assert compute_bins(np.arange(9.0), 1)[1] == 1
    # Nine of ten values are equal: two distinct edges are left, which are one bin.
    assert compute_bins(np.append(np.zeros(9), 1.0), 2)[1] == 1


def test_a_value_on_an_inner_edge_is_in_the_upper_bin():
    bins, n_bins, edges = compute_bins(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), 4, "uniform")
    np.testing.assert_array_equal(edges, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(bins, [0, 1, 2, 3, 3])
    assert n_bins == 4


def test_values_are_clipped_before_they_are_binned():
    values = np.append(np.arange(100.0), 1e6)
    *_, edges = compute_bins(values, 4, "uniform", (0.0, 0.99))
    assert edges[-1] == np.quantile(values, 0.99)
    assert compute_bins(values, 4, "uniform")[2][-1] == 1e6


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.integers(1, 12),
    st.sampled_from(["quantile", "uniform"]),
)
def test_bins_cover_and_order_the_values(values, wanted, method):
    bins, n_bins, edges = compute_bins(values, wanted, method)
    assert bins.min() >= 0
    assert bins.max() < n_bins <= max(wanted, 1)
    order = np.argsort(values, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert len(edges) == n_bins + 1 if n_bins > 1 else len(edges) <= 2


@given(
    st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.1 + 1e-16, 0.25, 1 / 3, 1.0]), min_size=1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 30),
    st.sampled_from([None, 1, 2, 5]),
    st.booleans(),
)
def test_strata_are_those_of_plain_numpy(values, seed, n_bins, least, has_more):
    random = np.random.default_rng(seed)
    p = random.choice([*values, random.random()], 40 if has_more else len(values))
    batch, burden = random.integers(0, 3, len(p)), random.integers(0, 4, len(p)).astype(float)
    cells = np.flatnonzero(random.random(len(p)) < 0.3)
    options = StrataOptions(n_bins=n_bins, min_stratum_size=least, n_burden_bins=3)
    shared = (batch, burden) if has_more else (None, None)
    found = Stratification(options, *shared).strata(p, cells)

    edges = np.unique(np.quantile(p, np.linspace(0, 1, n_bins + 1))) if n_bins > 1 else p[:0]
    label = np.searchsorted(edges[1:-1], p, side="right")
    assert found.propensity_bins == max(len(edges) - 1, 1)
    if has_more:
        bins, n_burden, _ = compute_bins(burden, 3)
        label = label * n_burden + bins
        label += first_appearance_codes(batch) * found.propensity_bins * n_burden
    _, label, sizes = np.unique(label, return_inverse=True, return_counts=True)
    is_kept = sizes >= (least or 1)
    stratum = np.where(is_kept, np.cumsum(is_kept) - 1, is_kept.sum())[label]
    np.testing.assert_array_equal(found.stratum, stratum)
    np.testing.assert_array_equal(found.sizes, np.bincount(stratum))
    np.testing.assert_array_equal(
        found.treated, np.bincount(stratum[cells], minlength=len(found.sizes))
    )


def test_batches_are_numbered_in_order_of_appearance():
    np.testing.assert_array_equal(first_appearance_codes(["b", "a", "b", "c"]), [0, 1, 0, 2])
    np.testing.assert_array_equal(
        first_appearance_codes(np.array(["b", None, np.nan, "b"], dtype=object)), [0, 1, 1, 0]
    )
    np.testing.assert_array_equal(
        first_appearance_codes(np.array([2.0, np.nan, np.nan])), [0, 1, 1]
    )


def test_uninformative_strata_are_reported():
    options = StrataOptions(n_bins=1, min_stratum_size=None)
    batch = np.repeat(["a", "b", "c"], 4)
    strata = Stratification(options, batch).strata(np.full(12, 0.4), np.array([0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(strata.treated, [4, 1, 0])
    assert strata.n_informative == 1
    assert strata.uninformative_treated_share == 0.8
    nobody = Stratification(options, batch).strata(np.full(12, 0.4), np.array([], dtype=int))
    assert nobody.n_informative == 0
    assert nobody.uninformative_treated_share == 0


def test_batch_and_burden_are_found():
    covariates = {"batch": np.array([1, 2]), "guides": np.array([3.0, 4.0])}
    stored = np.array([5, 6])
    options = StrataOptions(burden_key="guides")
    batch, burden = stratification_values(options, covariates, stored)
    assert batch is covariates["batch"]
    assert burden is covariates["guides"]
    assert stratification_values(StrataOptions(), None, stored) == (stored, None)
    named = StrataOptions(batch_key="lane")
    assert stratification_values(named, covariates, stored, "lane") == (stored, None)
    with pytest.raises(LabelError, match=r"'lnae', which batch_key.*'batch'.*batch 'lane'"):
        stratification_values(StrataOptions(batch_key="lnae"), covariates, stored, "lane")
    with pytest.raises(KeyError, match="no covariates with names"):
        stratification_values(StrataOptions(batch_key="lnae"))
    assert stratification_values(StrataOptions(), None, None) == (None, None)
    assert stratification_values(StrataOptions(stratify_by_batch=False), covariates) == (None, None)
    with pytest.raises(LabelError, match="no covariate 'guides'"):
        stratification_values(options, None, stored)


def test_unusable_input_is_refused():
    with pytest.raises(TypeError, match=r"unknown options .*: bins; there are n_bins"):
        StrataOptions.from_mapping({"bins": 3})
    for quantiles in ((-0.1, 1.0), (0.6, 0.4), (0.0, 1.1), (0.5,)):
        with pytest.raises(OptionError, match="clip quantiles"):
            StrataOptions(burden_clip_quantiles=quantiles)
    with pytest.raises(OptionError, match="'median'"):
        compute_bins(np.arange(3.0), 2, "median")
    with pytest.raises(InputError, match="1 of the values"):
        compute_bins([1.0, np.nan], 2)
    with pytest.raises(ShapeError, match="2 dimensions"):
        compute_bins(np.ones((2, 2)), 2)
    options = StrataOptions(burden_key="guides")
    with pytest.raises(ValueError, match=r"'guides' is missing or infinite in 1 cell;"):
        Stratification(options, burden=[1.0, np.nan])
    with pytest.raises(ValueError, match="'guides' is not numeric"):
        Stratification(options, burden=["few", "many"])
    with pytest.raises(ShapeError, match="3 propensities and 2 values of the batch"):
        Stratification(StrataOptions(), batch=["a", "b"]).strata(np.full(3, 0.5), np.array([0]))
    with pytest.raises(ShapeError, match="2 dimensions"):
        first_appearance_codes(np.ones((2, 2)))
