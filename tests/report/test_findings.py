"""The one pass over a result: the same numbers as the functions on whole arrays."""

import numpy as np
import pytest

from plait import mash as pm
from plait.errors import NotAvailableError, OptionError, ShapeError
from plait.report import mash_findings
from plait.report.mash_findings import collect, labels_of
from tests.report.results import Lazy, make_result


@pytest.fixture(params=[False, True], ids=["in memory", "lazy"])
def lazy(request):
    return request.param


def test_agrees_with_whole_arrays(lazy, monkeypatch):
    monkeypatch.setattr(mash_findings, "_BLOCK_CELLS", 4096)
    result = make_result(5000, 4, lazy=lazy)
    whole = make_result(5000, 4)
    found = collect(result, 0.05, most=300)
    significant = whole.lfsr < 0.05
    np.testing.assert_array_equal(found.sharing, pm.get_pairwise_sharing(whole))
    np.testing.assert_array_equal(found.same_sign, pm.get_pairwise_sharing(whole, factor=0))
    assert (found.same_sign >= found.sharing).all()
    np.testing.assert_array_equal(found.significant, significant.sum(axis=0))
    np.testing.assert_array_equal(found.alone, significant[significant.sum(axis=1) == 1].sum(0))
    assert found.n_anywhere == len(pm.get_significant_results(whole))
    assert found.n_everywhere == significant.all(axis=1).sum()
    assert found.expected_wrong == pytest.approx(whole.lfsr[significant].mean())
    assert found.similar.sum() == found.n_anywhere
    best = np.sort(whole.lfsr.min(axis=1))[:300]
    np.testing.assert_array_equal(found.surest.best, best)
    np.testing.assert_array_equal(found.surest.mean, whole.posterior_mean[found.surest.rows])
    np.testing.assert_array_equal(found.surest.sd, whole.posterior_sd[found.surest.rows])
    if lazy:
        assert result.lfsr.most_rows == 1024


def test_blocks_change_nothing(monkeypatch):
    result = make_result(5000, 3)
    whole = collect(result, 0.05, most=200)
    monkeypatch.setattr(mash_findings, "_BLOCK_CELLS", 1024)
    blocks = collect(result, 0.05, most=200)
    assert whole.sharing.tobytes() == blocks.sharing.tobytes()
    np.testing.assert_array_equal(whole.surest.rows, blocks.surest.rows)
    np.testing.assert_array_equal(whole.points.rows, blocks.points.rows)
    np.testing.assert_array_equal(whole.points.contexts, blocks.points.contexts)


def test_similar_contexts():
    """Sizes 4, 3, 1, -4: the effect is alike in two contexts."""
    one = make_result(
        1, 4, posterior_mean=np.array([[4.0, 3.0, 1.0, -4.0]]), posterior_sd=np.ones((1, 4)),
        lfsr=np.array([[0.001, 0.001, 0.3, 0.2]]),
    )  # fmt: skip
    np.testing.assert_array_equal(collect(one).similar, [0, 1, 0, 0])


def test_the_strongest_is_among_the_significant():
    one = make_result(
        1, 3, posterior_mean=np.array([[1.0, 9.0, 1.5]]), posterior_sd=np.ones((1, 3)),
        lfsr=np.array([[0.01, 0.3, 0.2]]),
    )  # fmt: skip
    np.testing.assert_array_equal(collect(one).similar, [0, 1, 0])


def test_points_are_all_of_few_and_some_of_many():
    few = collect(make_result(50, 3)).points
    assert len(few.rows) == 150
    many = collect(make_result(20_000, 5)).points
    assert 1000 < len(many.rows) <= 6500
    result = make_result(20_000, 5)
    np.testing.assert_array_equal(many.lfsr, result.lfsr[many.rows, many.contexts])
    np.testing.assert_array_equal(many.mean, result.posterior_mean[many.rows, many.contexts])


def test_empty_cells_are_counted_and_left_out():
    plain = make_result(300, 4)
    mean, lfsr = np.array(plain.posterior_mean), np.array(plain.lfsr)
    mean[5], lfsr[5], lfsr[7, 2] = np.nan, np.nan, np.nan
    found = collect(make_result(300, 4, posterior_mean=mean, lfsr=lfsr))
    assert found.n_empty == 5
    assert np.isfinite(found.points.mean).all()
    assert found.surest.rows[-1] == 5


def test_certain_and_tied_effects_are_ranked_by_strength():
    mean = np.array([[1.0, 0.0], [3.0, 0.0], [-9.0, 0.0]])
    result = make_result(
        3, 2, posterior_mean=mean, posterior_sd=np.ones((3, 2)), lfsr=np.zeros((3, 2))
    )
    np.testing.assert_array_equal(collect(result).surest.rows, [2, 1, 0])


@pytest.mark.parametrize("field", ["posterior_mean", "posterior_sd", "lfsr"])
def test_without_a_posterior(field):
    with pytest.raises(NotAvailableError, match=f"no {field}.*outputlevel=2"):
        collect(make_result(**{field: None}))


@pytest.mark.parametrize("level", [0, 1, -1, np.nan])
def test_bad_level(level):
    with pytest.raises(OptionError, match="between 0 and 1"):
        collect(make_result(), level)


def test_empty_result():
    none = np.empty((0, 3))
    with pytest.raises(ShapeError, match="empty"):
        collect(make_result(posterior_mean=none, posterior_sd=none, lfsr=none))


def test_labels_are_read_block_by_block():
    names = Lazy(np.array([f"n{i}" for i in range(200_000)]))
    rows = np.array([199_999, 0, 70_000, 3])
    assert labels_of(names, rows) == ["n199999", "n0", "n70000", "n3"]
    assert names.most_rows <= 1 << 16
    assert labels_of(None, np.array([4, 2])) == ["row 4", "row 2"]
