"""Credible sets, renumbered by their evidence."""

import numpy as np
import pytest

from plait import mash as pm
from plait.errors import InputError, NotAvailableError, OptionError

LABELS = np.array([3, 3, 0, 7, 7, 9])
LOG10BF = np.array([1.0, 2.0, 50.0, 8.0, np.nan, np.nan])


def test_sets_are_numbered_by_falling_evidence():
    renumbered, summary = pm.renumber_credible_sets_by_logbf(LABELS, LOG10BF)
    np.testing.assert_array_equal(renumbered, [2, 2, 0, 1, 1, 3])
    assert [s.credible_set for s in summary] == [1, 2, 3]
    assert [s.old_credible_set for s in summary] == [7, 3, 9]
    assert [s.n_effects for s in summary] == [2, 2, 1]
    assert [s.lead_effect for s in summary] == [3, 1, 5]
    assert summary[1].lead_log10bf == 2.0
    assert summary[1].mean_log10bf == 1.5
    # Nothing finite: no evidence, no mean.
    assert summary[2].lead_log10bf == -np.inf
    assert np.isnan(summary[2].mean_log10bf)
    np.testing.assert_array_equal(LABELS, [3, 3, 0, 7, 7, 9])


def test_ties_keep_the_old_order_and_lead_is_the_first_largest():
    renumbered, summary = pm.renumber_credible_sets_by_logbf([8, 5, 8, 5], [1.0, 1.0, 1.0, 0.5])
    np.testing.assert_array_equal(renumbered, [2, 1, 2, 1])
    assert summary[1].lead_effect == 0


def test_infinite_evidence_does_not_lead():
    _, summary = pm.renumber_credible_sets_by_logbf([1, 1, 2], [np.inf, 1.0, 2.0])
    assert [s.old_credible_set for s in summary] == [2, 1]
    assert summary[1].lead_log10bf == summary[1].mean_log10bf == 1.0


def test_another_label_for_the_unassigned_and_no_sets_at_all():
    renumbered, summary = pm.renumber_credible_sets_by_logbf([-1, 0, 4], [9.0, 1.0, 2.0], -1)
    np.testing.assert_array_equal(renumbered, [-1, 2, 1])
    assert len(summary) == 2
    renumbered, summary = pm.renumber_credible_sets_by_logbf([0, 0], [9.0, 1.0])
    np.testing.assert_array_equal(renumbered, [0, 0])
    assert summary == []


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 3), int), np.zeros(5, int), np.zeros(6), np.zeros(6, bool)]
)
def test_bad_labels(labels):
    with pytest.raises(InputError):
        pm.renumber_credible_sets_by_logbf(labels, LOG10BF)


def test_report():
    _, summary = pm.renumber_credible_sets_by_logbf(LABELS, LOG10BF)
    table = pm.format_credible_set_report(summary)
    lines = table.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["1", "7", "2", "3", "8", "8"]
    assert len(pm.format_credible_set_report(summary, top_n=2).splitlines()) == 3
    assert len(pm.format_credible_set_report([]).splitlines()) == 1
    with pytest.raises(OptionError, match="top_n"):
        pm.format_credible_set_report(summary, top_n=0)


def test_evidence_of_a_result():
    sim = pm.simple_sims(20, 3, 0.5, seed=2)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"])
    fit = pm.mash(data, pm.cov_canonical(data))
    sets = np.repeat([1, 2], 40)
    renumbered, found = pm.renumber_credible_sets_from_result(fit, sets)
    assert found[0].lead_log10bf == pytest.approx(np.max(pm.get_log10bf(fit)))
    assert set(renumbered) == {1, 2}
    with pytest.raises(NotAvailableError, match="log10bf"):
        pm.renumber_credible_sets_from_result(pm.mash_1by1(data), sets)
    without = pm.mash(data, pm.cov_canonical(data), usepointmass=False, prior="uniform")
    with pytest.raises(NotAvailableError, match="log10bf"):
        pm.renumber_credible_sets_from_result(without, sets)
