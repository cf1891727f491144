import numpy as np
import pytest

from plait.crt import prepare_crt_inputs
from plait.errors import OptionError
from plait.simulate.screen import make_sceptre_style_synth

SMALL = {"N": 4000, "K": 6, "n_target_genes": 10, "n_effect_programs": 2, "n_cov_extra": 2}


def test_shapes_names_and_marginals_of_a_screen():
    made = make_sceptre_style_synth(**SMALL, ntc_frac_guides=0.25, moi_mean=4.0, seed=3)
    names = made.uns["guide_names"]
    assert len(names) == 80 and names[0] == "GENE00000_g01" and names[60] == "NTC_g0001"
    assert made.obs_names[7] == "cell0000007"
    assert made.obsm["covar"].shape == (4000, 5) and (made.obsm["covar"][:, 0] == 1).all()
    usage, guides = made.obsm["usage"], made.obsm["guide_assignment"]
    np.testing.assert_allclose(usage.sum(axis=1), 1.0, rtol=1e-12)
    assert guides.shape == (4000, 80) and guides.dtype == np.int8 and set(guides.data) == {1}
    # Binomial shares within six standard deviations.
    assert abs((usage < 1e-4).mean() - 0.15) < 6 * np.sqrt(0.15 * 0.85 / 24_000)
    assert abs(made.obsm["covar"][:, 1].mean() - 0.5) < 6 * np.sqrt(0.25 / 4000)
    # Controls are drawn without replacement, so their number is Poisson of mean 4 x 0.25.
    assert abs(guides[:, 60:].sum() / 4000 - 1.0) < 6 * np.sqrt(1 / 4000)
    assert len(made.uns["causal_genes"]) == 1
    shift = made.uns["gene_effects"][made.uns["causal_genes"][0]]
    assert sorted(np.abs(shift)) == [0, 0, 0, 0, 0.6, 0.6]


def test_the_same_seed_makes_the_same_bits():
    one, two, other = (make_sceptre_style_synth(**SMALL, seed=seed) for seed in (5, 5, 6))
    for key in ("covar", "usage"):
        np.testing.assert_array_equal(one.obsm[key], two.obsm[key])
        assert (one.obsm[key] != other.obsm[key]).any()
    assert (one.obsm["guide_assignment"] != two.obsm["guide_assignment"]).nnz == 0


def test_a_global_null_differs_from_the_screen_in_cells_of_causal_genes_only():
    made = make_sceptre_style_synth(**SMALL, seed=2)
    null = make_sceptre_style_synth(**SMALL, seed=2, global_null=True)
    assert null.uns["causal_genes"] == [] and null.uns["gene_effects"] == {}
    own = [made.uns["guide2gene"][g] in made.uns["causal_genes"] for g in made.uns["guide_names"]]
    carriers = np.asarray(made.obsm["guide_assignment"][:, np.flatnonzero(own)].sum(axis=1)) > 0
    changed = (made.obsm["usage"] != null.obsm["usage"]).any(axis=1)
    np.testing.assert_array_equal(changed, carriers.ravel())
    assert make_sceptre_style_synth(**SMALL, frac_causal_genes=0.0).uns["causal_genes"] == []


def test_confounding_tilts_the_frequency_of_genes_between_batches():
    spread = []
    for strength in (0.0, 1.0):
        made = make_sceptre_style_synth(**SMALL, confound_strength=strength, seed=1)
        batch = made.obsm["covar"][:, 1] == 1
        of_gene = made.obsm["guide_assignment"].toarray()[:, :60].reshape(4000, 10, 6).any(axis=2)
        spread.append(np.std(np.log(of_gene[batch].mean(axis=0) / of_gene[~batch].mean(axis=0))))
    assert spread[0] < 0.2 < 0.5 < spread[1]


@pytest.mark.filterwarnings("ignore::plait.errors.DataWarning")
def test_the_screen_can_be_prepared_with_default_options():
    inputs = prepare_crt_inputs(make_sceptre_style_synth(**SMALL, seed=4), usage_key="usage")
    assert np.isfinite(inputs.Y).all()


def test_options_outside_their_range_are_refused():
    for option in ({"ntc_frac_guides": 1.0}, {"guides_per_gene": 0}, {"n_effect_programs": 7}):
        with pytest.raises(OptionError, match=next(iter(option))):
            make_sceptre_style_synth(**{**SMALL, **option})
    assert len(make_sceptre_style_synth(**SMALL, guides_per_gene=3).uns["guide_names"]) == 35
