import numpy as np
import pytest

from plait.crt.null_spread import stratified_spread
from plait.crt.resampling import StratifiedResampler, index_lists
from plait.crt.seeds import UnitStream
from plait.crt.strata import Strata
from tests.crt.cases import effects_of_index_lists


def screen(n_cells=2500, seed=1):
    """Return residuals and their basis, and the strata of two units (one stratum is empty)."""
    random = np.random.default_rng(seed)
    covariates = np.column_stack([np.ones(n_cells), random.standard_normal((n_cells, 2))])
    basis = np.linalg.qr(covariates)[0]
    outcomes = random.standard_normal((n_cells, 3)) * [1.0, 2.0, 0.1]
    residuals = outcomes - basis @ (basis.T @ outcomes)
    strata = []
    for n_strata in (4, 7):
        stratum = random.integers(0, n_strata - 1, n_cells)
        sizes = np.bincount(stratum, minlength=n_strata)
        strata.append(Strata(stratum, sizes, np.minimum(20, sizes), n_strata))
    return residuals, basis, strata


def test_spread_within_strata_is_its_formula_and_that_of_draws():
    residuals, basis, strata = screen()
    found = stratified_spread(residuals, basis, strata)
    for unit, row in zip(strata, found, strict=True):
        variance, spread_of_basis, expected = np.zeros(3), 0.0, np.zeros(3)
        for h in range(len(unit.sizes) - 1):
            n, m = unit.sizes[h], unit.treated[h]
            inside = unit.stratum == h
            factor = m * (n - m) / (n - 1)
            variance += factor * residuals[inside].var(axis=0)
            spread_of_basis += factor * basis[inside].var(axis=0).sum()
            expected += m * basis[inside].mean(axis=0)
        denominator = unit.treated.sum() - expected @ expected - spread_of_basis
        np.testing.assert_allclose(row, np.sqrt(variance) / denominator, rtol=1e-12)
        resampler = StratifiedResampler(unit.stratum, unit.treated, UnitStream(1, "unit"))
        drawn = effects_of_index_lists(residuals, basis, *index_lists(resampler, 4000))
        # The error of a standard deviation of 4000 normal draws is 1.1 %.
        assert row == pytest.approx(drawn.std(axis=0), rel=0.055)


def test_spread_of_a_unit_does_not_depend_on_the_others():
    residuals, basis, strata = screen()
    both = stratified_spread(residuals, basis, strata)
    np.testing.assert_array_equal(stratified_spread(residuals, basis, strata[1:]), both[1:])
