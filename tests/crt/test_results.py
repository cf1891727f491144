"""What the result of a screen says of itself."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri

from plait.crt.results import CRTResult, z_scores


def result(flags, status=("ok", "ok")):
    """Return a result of two perturbations on two programs, drawn where a flag is not "ok"."""
    flags = np.array(flags)
    drawn = ~np.isin(flags, ["ok", "none"])
    method = np.where(drawn, "monte carlo", np.where(flags == "ok", "saddlepoint", "none"))
    p = np.where(drawn, 1 / 2001, 0.3)
    return CRTResult(
        beta=np.ones((2, 2)),
        p=p,
        log10p=np.log10(p),
        p_method=method,
        p_flag=flags,
        n_resamples=np.where(drawn, 2000, 0),
        status=np.array(status),
        n_treated=np.array([30, 40]),
        expected_treated=np.array([30.0, 40.0]),
        units=("A", "B"),
        programs=("P", "Q"),
    )


def test_effects_beyond_the_analytic_form_are_named():
    said = result([["ok", "beyond_support"], ["few_cells", "ok"]]).summary()
    assert (
        "  drawn: 2 of 4 p-values (1 of effects beyond what the analytic form reaches, 1 that a "
        "few cells decide), in up to 2,000 resamples\n"
    ) in said
    assert (
        "  beyond the analytic form: A -> Q; the smallest of these p-values is 0.00050, and "
        "resamples show none below 1 / (their number + 1)"
    ) in said


def test_nothing_is_said_of_units_without_a_test():
    said = result([["ok", "ok"], ["none", "none"]], ("ok", "degenerate")).summary()
    assert "drawn" not in said and "beyond" not in said
    few = result([["few_treated", "ok"], ["none", "none"]], ("ok", "degenerate")).summary()
    assert "drawn: 1 of 2 p-values (1 of few treated cells)" in few and "beyond" not in few


@pytest.mark.parametrize(("side", "sign"), [("left", -1.0), ("right", 1.0)])
def test_scores_of_a_one_sided_test_are_of_its_side(side, sign):
    p = np.array([[1e-6, 0.2], [0.9, 1.0]])
    ranks = replace(
        result([["ok", "ok"], ["ok", "ok"]]),
        p=p,
        log10p=np.log10(p),
        beta=sign * np.array([[0.5, 0.1], [-0.1, -0.6]]),
        settings={"side": side},
    )
    expected = sign * np.array([[-ndtri(1e-6), -ndtri(0.2)], [0.0, 0.0]])
    np.testing.assert_allclose(z_scores(ranks), expected, rtol=1e-12)


def test_perturbations_of_one_treated_cell_are_named():
    one = replace(
        result([["ok", "ok"], ["ok", "ok"]]),
        n_treated=np.array([1, 40]),
        settings={"sampler": "bernoulli", "method": "analytic"},
    )
    assert "too small, by a factor of up to 1.7: 1 perturbation of one treated cell (A)" in (
        one.summary()
    )
    for settings in ({"sampler": "stratified"}, one.settings | {"method": "ntc-empirical"}):
        assert "one treated cell" not in replace(one, settings=settings).summary()
    assert "one treated cell" not in replace(one, n_treated=np.array([2, 40])).summary()
