import numpy as np
import pytest

from plait.crt import perturbation_effects, prepare_crt_inputs
from plait.errors import OptionError
from plait.simulate import make_synthetic_adata


def test_the_screen_is_taken_as_it_is():
    made = make_synthetic_adata(1, n_cells=300, include_categorical=True)
    inputs = prepare_crt_inputs(made)
    assert inputs.units == ("gene_0", "gene_1", "gene_2", "non-targeting")
    assert inputs.program_names == tuple(f"program_{k}" for k in range(5))
    assert set(inputs.batch_raw) == {"b0", "b1", "b2"}
    np.testing.assert_allclose(made.obsm["cnmf_usage"].sum(axis=1), 1.0, rtol=1e-12)
    names = [guide for guide in made.uns["guide_names"] if not guide.startswith("gene")]
    assert len(names) == round(0.15 / 0.85 * 6) == 1


def test_an_effect_is_on_its_gene_and_program_and_there_is_none_by_default():
    options = {"n_cells": 800, "n_genes": 6, "effect_gene": "gene_4", "effect_program": 2}
    changed, null = (
        make_synthetic_adata(3, effect_size=size, **options).obsm["cnmf_usage"].to_numpy()
        for size in (1.0, 0.0)
    )
    made = make_synthetic_adata(3, effect_size=1.0, **options)
    own = [made.uns["guide2gene"][guide] == "gene_4" for guide in made.uns["guide_names"]]
    carriers = np.asarray(made.obsm["guide_assignment"][:, np.flatnonzero(own)].sum(axis=1)).ravel()
    np.testing.assert_array_equal((changed != null).any(axis=1), carriers > 0)
    ratio = np.log(changed[:, 2] / changed[:, 0]) - np.log(null[:, 2] / null[:, 0])
    np.testing.assert_allclose(ratio[carriers > 0], 1.0)
    found = perturbation_effects(prepare_crt_inputs(made))
    best = np.unravel_index(found.p.argmin(), found.p.shape)
    assert (found.units[best[0]], best[1]) == ("gene_4", 2) and found.p.min() < 1e-20


def test_frequencies_depend_on_the_first_covariate_unless_they_are_constant():
    spread = []
    for mode in ("constant", "covariate"):
        made = make_synthetic_adata(2, n_cells=6000, n_genes=10, propensity_mode=mode)
        high = made.obsm["covar"]["covar_0"].to_numpy() > 0
        of_gene = made.obsm["guide_assignment"].toarray()[:, :20].reshape(6000, 10, 2).any(axis=2)
        spread.append(np.std(np.log(of_gene[high].mean(axis=0) / of_gene[~high].mean(axis=0))))
    assert spread[0] < 0.15 < 0.3 < spread[1]


def test_a_generator_goes_on_where_it_is():
    random = np.random.default_rng(5)
    one, two = make_synthetic_adata(random), make_synthetic_adata(random)
    assert not one.obsm["covar"].equals(two.obsm["covar"])
    assert one.obsm["covar"].equals(make_synthetic_adata(5).obsm["covar"])


def test_control_guides_are_shared_out_and_may_be_absent():
    made = make_synthetic_adata(0, n_genes=20, ntc_frac_guides=0.3)
    targets = [t for t in made.uns["guide2gene"].values() if not t.startswith("gene")]
    assert len(targets) == 17
    assert abs(targets.count("non-targeting") - targets.count("safe-targeting")) == 1
    assert len(make_synthetic_adata(0, ntc_frac_guides=0.0).uns["guide_names"]) == 6


@pytest.mark.parametrize(
    "option",
    [
        {"n_cells": 0}, {"effect_program": 5}, {"propensity_mode": "none"}, {"ntc_genes": ()},
        {"ntc_frac_guides": 1.0}, {"effect_gene": "gene_9"}, {"moi_mean": -1.0},
    ],
)  # fmt: skip
def test_options_outside_their_range_are_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        make_synthetic_adata(0, **option)
