import numpy as np
import pytest
from scipy.sparse import csr_array

from plait.errors import OptionError, ShapeError
from plait.simulate import guide_umi_counts, make_count_screen

SMALL = {"N": 3000, "n_genes": 60, "K": 4, "n_targets": 10, "n_downstream": 5, "seed": 1}


def test_shapes_and_totals():
    made = make_count_screen(**SMALL)
    assert made.X.shape == (3000, 60) and made.X.dtype == np.int32
    total = np.asarray(made.X.sum(axis=1)).ravel()
    # Programs sum to 1, so totals follow depths; a cell's total has a coefficient of variation
    # below 0.6 and their mean one of 0.6 / sqrt(3000).
    untouched = make_count_screen(**SMALL, global_null=True)
    depth = np.exp(untouched.obs["log_depth"])
    total = np.asarray(untouched.X.sum(axis=1)).ravel()
    assert abs((total / depth).mean() - 1) < 6 * 0.6 / np.sqrt(3000)
    assert set(made.obs["batch"]) == {"b0", "b1"}
    assert made.var_names[0] == "GENE00000" and made.obs_names[5] == "cell0000005"
    assert len(made.uns["guide_names"]) == made.obsm["guide_umis"].shape[1]


def test_counts_are_negative_binomial():
    """Without programs, guides and depth to vary, mean and variance are those of the formula."""
    made = make_count_screen(
        N=20_000, n_genes=8, K=1, n_targets=1, n_downstream=0, moi_mean=0.0, depth_sd=0.0,
        depth_mean=800.0, dispersion=(2.0, 0.0), seed=3,
    )  # fmt: skip
    counts = made.X.toarray().astype(float)
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    assert abs(mean.sum() / 800 - 1) < 0.02
    expected = mean + mean**2 / 2.0
    # The relative error of a variance is sqrt(kurtosis / N), with a kurtosis of about 6 + 3.
    np.testing.assert_allclose(variance, expected, rtol=6 * np.sqrt(9 / 20_000))


def test_effects_change_the_counts_of_carriers_by_their_fold_change():
    options = {**SMALL, "N": 12_000, "moi": "low", "depth_sd": 0.0, "effect_size": 1.0}
    made, null = (make_count_screen(**options, global_null=is_null) for is_null in (False, True))
    for key in ("usage", "covar"):
        assert np.array_equal(made.obsm[key], null.obsm[key])
    assert (made.obsm["guide_umis"] != null.obsm["guide_umis"]).nnz == 0
    targets = np.array([made.uns["guide2gene"][guide] for guide in made.uns["guide_names"]])
    carried = {
        gene: made.obsm["guide_assignment"][:, np.flatnonzero(targets == gene)]
        .toarray()
        .any(axis=1)
        for gene in made.uns["causal_genes"]
    }
    target = max(carried, key=lambda gene: carried[gene].sum())
    carriers, effects = carried[target], made.uns["gene_effects"][target]
    changed = np.flatnonzero(effects)
    assert len(changed) in (5, 6) and carriers.sum() > 300
    with_, without = (m.X[carriers][:, changed].toarray().mean(axis=0) for m in (made, null))
    # The relative variance of a mean of n counts is (1 / mean + 1 / theta) / n, and usages add less
    # than a half to it.
    noise = 2 / made.var["theta"].to_numpy()[changed] + 1 / with_ + 1 / without + 1
    error = np.sqrt(noise / carriers.sum())
    assert (np.abs(np.log(with_ / without) - effects[changed]) < 5 * error).all()
    assert null.uns["causal_genes"] == [] and not any(
        map(np.any, null.uns["gene_effects"].values())
    )


def test_low_multiplicity_is_one_guide_in_every_cell():
    made = make_count_screen(**{**SMALL, "moi": "low", "ntc_frac_guides": 0.3})
    assert set(np.asarray(made.obsm["guide_assignment"].sum(axis=1)).ravel()) == {1}
    share = made.obsm["guide_assignment"][:, 40:].sum() / 3000
    assert abs(share - 0.3) < 6 * np.sqrt(0.21 / 3000)


def test_umis_are_a_mixture_of_carriers_and_background():
    random = np.random.default_rng(2)
    carried = csr_array((random.random((4000, 30)) < 0.05).astype(np.int8))
    depth = np.where(np.arange(4000) < 2000, 0.5, 1.5)
    umis = guide_umi_counts(random, carried, 20.0, 0.1, relative_depth=depth).toarray()
    is_carried = carried.toarray() == 1
    for half, factor in ((slice(0, 2000), 0.5), (slice(2000, 4000), 1.5)):
        for present, mean in ((True, 20.1 * factor), (False, 0.1 * factor)):
            values = umis[half][is_carried[half] == present]
            assert abs(values.mean() - mean) < 6 * np.sqrt(mean / len(values))
            assert abs(values.var() / mean - 1) < 0.2
    assert (guide_umi_counts(random, carried, 0.0, 0.0)).nnz == 0


def test_the_screen_survives_a_file(tmp_path):
    anndata = pytest.importorskip("anndata")
    made = make_count_screen(**SMALL)
    made.write_h5ad(tmp_path / "screen.h5ad")
    read = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert (read.X != made.X).nnz == 0
    assert (read.obsm["guide_umis"] != made.obsm["guide_umis"]).nnz == 0
    assert list(read.uns["synth_params"]["dispersion"]) == [1.0, 0.5]


def test_the_same_seed_makes_the_same_bits():
    one, two = make_count_screen(**SMALL), make_count_screen(**SMALL)
    assert (one.X != two.X).nnz == 0


@pytest.mark.parametrize(
    "option",
    [
        {"K": 0}, {"n_targets": 61}, {"n_downstream": 61}, {"moi": "none"},
        {"ntc_frac_guides": 1.0}, {"depth_mean": 0.0},
    ],
)  # fmt: skip
def test_options_outside_their_range_are_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        make_count_screen(**{**SMALL, **option})


def test_umis_that_cannot_be_drawn_are_refused():
    random, carried = np.random.default_rng(0), csr_array(np.eye(3))
    with pytest.raises(OptionError, match="background -1"):
        guide_umi_counts(random, carried, 1.0, -1.0)
    with pytest.raises(ShapeError, match="3 positive numbers"):
        guide_umi_counts(random, carried, relative_depth=np.ones(2))
