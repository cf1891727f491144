"""Figures of screens with counts of genes show what they are given."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest

from plait import plot
from plait.errors import InputError, OptionError, ShapeError
from plait.plot.pair_violin import density
from plait.plot.screen_cells import bounded_bins, counted_bins, multiplicities
from plait.plot.screen_pairs import beside

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def random():
    return np.random.default_rng(4)


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def caption_of(ax):
    return " ".join(ax.get_figure().get_supxlabel().split())


def tick_boxes(axis):
    axis.get_figure().canvas.draw()
    low, high = axis.get_view_interval()
    return [
        label.get_window_extent()
        for place, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if low <= place <= high
    ]


def heights_of(ax):
    return [[bar.get_height() for bar in part] for part in ax.containers]


def no_text_is_cut(ax):
    figure = ax.get_figure()
    figure.canvas.draw()
    drawn = ax.get_tightbbox()
    assert drawn.x0 >= figure.bbox.x0 - 1 and drawn.y0 >= figure.bbox.y0 - 1
    assert drawn.x1 <= figure.bbox.x1 + 1 and drawn.y1 <= figure.bbox.y1 + 1


# ------------------------------------------------------------------ violins


def test_violins_have_the_means_and_sides_of_their_pairs(random):
    treated = [random.normal(3, 1, 50), random.normal(0, 1, 40)]
    controls = [random.normal(1, 1, 300), np.r_[random.normal(1, 1, 300), np.nan]]
    ax = plot.pair_violin(
        treated, controls, ["A on g", "B on h"], [-40.2, -1.3], caption=True, title="Pairs"
    )
    means = sorted(float(line.get_ydata()[0]) for line in ax.lines)
    expected = sorted([v.mean() for v in treated] + [np.nanmean(v) for v in controls])
    np.testing.assert_allclose(means, expected)
    assert legend_of(ax) == ["control cells", "treated cells, higher", "treated cells, lower"]
    assert [text.get_text() for text in ax.texts] == ["p = 6e-41", "p = 0.05"]
    control, own = (part.get_paths()[0].vertices for part in ax.collections[:2])
    assert control[:, 0].max() <= 0 <= own[:, 0].min()
    np.testing.assert_allclose(own[:, 1].max(), treated[0].max())
    no_text_is_cut(ax)


def test_a_violin_is_a_smoothed_distribution(random):
    from scipy.stats import gaussian_kde

    values = random.normal(size=3000)
    places, heights = density(values)
    expected = gaussian_kde(values)(places)
    np.testing.assert_allclose(heights, expected / expected.max(), atol=0.02)
    assert places[0] == values.min() and places[-1] == values.max()
    places, heights = density(np.full(7, 2.0))
    assert places.tolist() == [2.0] and heights.tolist() == [1.0]


def test_p_values_of_violins_are_rounded_to_one_digit(random):
    values = [random.normal(size=9)] * 3
    logs = [-1.0, np.log10(9.7e-6), -412.3]
    ax = plot.pair_violin(values, values, ["a", "b", "c"], log10p=logs)
    assert [text.get_text() for text in ax.texts] == ["p = 0.1", "p = 1e-5", "p = 5e-413"]


def test_violins_that_cannot_be_drawn():
    with pytest.raises(ShapeError, match="0 arrays of treated"):
        plot.pair_violin([], [])
    with pytest.raises(ShapeError, match="1 arrays of treated cells and 2"):
        plot.pair_violin([[1.0]], [[1.0], [2.0]])
    with pytest.raises(InputError, match="x has no treated or no control"):
        plot.pair_violin([[]], [[1.0]], ["x"])
    with pytest.raises(ShapeError, match="p-values have shape"):
        plot.pair_violin([[1.0]], [[1.0]], log10p=[-1.0, -2.0])


# ------------------------------------------------------------------ guides and cells


def test_guide_counts_are_all_in_bins(random):
    counts = np.r_[np.zeros(50), random.poisson(2, 400), random.poisson(300, 60), 5000]
    has = counts > 50
    ax = plot.guide_counts(counts, has, title="g1", caption=True)
    without, with_guide = heights_of(ax)
    assert sum(without) == ((counts > 0) & ~has).sum() and sum(with_guide) == has.sum() == 61
    assert legend_of(ax)[1] == "assigned (61)"
    edges, first, second = counted_bins(np.array([1.0, 1.0, 0.0]), np.array([True, False, False]))
    assert len(edges) == 2 and (first.sum(), second.sum()) == (1, 1)
    no_text_is_cut(ax)
    with pytest.raises(InputError, match="no cell has counts"):
        plot.guide_counts([0, 0], [False, False])
    with pytest.raises(ShapeError, match="shapes"):
        plot.guide_counts([1, 2], [True])


def test_cells_of_guides_stand_in_order():
    names = ["a", "b", "c", "d"]
    ax = plot.cells_per_guide([3, 9, 5, 0], names, [False, False, True, False], caption=True)
    assert heights_of(ax) == [[9, 3, 0], [5]]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "c", "a", "d"]
    assert legend_of(ax) == ["guides of targets", "non-targeting guides"]
    many = plot.cells_per_guide(np.arange(200), [str(i) for i in range(200)])
    assert many.get_xlabel() == "200 guides"
    lines = plot.cells_per_guide(np.arange(1000)).collections[0].get_segments()
    assert [line[1][1] for line in lines] == list(range(999, -1, -1))
    with pytest.raises(ShapeError, match="is_control"):
        plot.cells_per_guide([1, 2], None, [True])


def test_guides_of_cells_are_counted():
    ax = plot.guides_per_cell([0, 1, 1, 3], caption=True)
    assert heights_of(ax) == [[1, 2, 0, 1]]
    names, cells = multiplicities(np.r_[np.arange(40), 2])
    assert names[-1] == ">15" and cells[-1] == 24 and cells.sum() == 41
    with pytest.raises(ShapeError, match="one for each cell"):
        plot.guides_per_cell([])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40, 12_000])
def test_axes_of_numbers_of_cells_have_ticks_at_whole_numbers(count):
    pictures = [
        plot.guides_per_cell(np.zeros(count, dtype=np.int64)),
        plot.cells_per_guide([count]),
        plot.cell_histogram(np.ones(count)),
        plot.fold_changes(np.zeros(count)),
    ]
    for ax in pictures:
        ax.figure.canvas.draw()
        low, high = ax.get_ylim()
        ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
        assert len(ticks) >= 2 and all(tick == round(tick) for tick in ticks)
        said = [text.get_text().replace(",", "") for text in ax.get_yticklabels()]
        assert [int(text) for text in said] == ax.get_yticks().tolist()


@pytest.mark.parametrize("low", [None, 100.0])
@pytest.mark.parametrize("scale", ["counts", "few counts", "shares", "equal"])
def test_a_covariate_with_its_bounds(random, low, scale):
    values = {
        "counts": np.round(np.exp(random.normal(6, 1, 900))) + 1,
        "few counts": random.poisson(9, 900).astype(float),
        "shares": random.beta(2, 30, 900),
        "equal": np.full(900, 3.0),
    }[scale]
    ax = plot.cell_histogram(np.r_[values, np.nan], low, xlabel="counts", caption=True)
    used, left = (np.array(part) for part in heights_of(ax))
    assert used.sum() + left.sum() == 900
    assert left.sum() == (0 if low is None else (values < low).sum())
    assert (ax.get_xscale() == "log") == (scale == "counts")
    edges, _, _ = bounded_bins(values, low, None)
    assert (np.diff(edges) > 0).all() and len(edges) <= 52
    no_text_is_cut(ax)


def test_whole_numbers_make_no_comb(random):
    values = np.repeat(np.arange(10.0, 110.0), 7)
    _, used, _ = bounded_bins(values, None, None)
    assert len(set(used.tolist())) == 1
    counts = np.maximum(np.round(np.exp(random.normal(2.0, 0.8, 9000))), 1.0)
    for edges in (bounded_bins(counts, None, None)[0], counted_bins(counts, counts > 9)[0]):
        widths = np.diff(edges[:-1])  # no bin is narrower than the one before
        assert (np.diff(widths) >= -1e-9).all() and edges[-1] > counts.max()
    with pytest.raises(InputError, match="no finite values"):
        plot.cell_histogram([np.nan])


def test_reasons_why_cells_are_left_out():
    ax = plot.removed_cells({"no guide": 20, "any reason": 30}, 200, caption=True)
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.15]
    assert [text.get_text() for text in ax.texts] == ["no guide: 10.0%", "any reason: 15.0%"]
    few = plot.removed_cells({"no guide": 0, "other": 1, "any reason": 1}, 20_000)
    assert [text.get_text().split(": ")[1] for text in few.texts] == ["0.0%", "< 0.1%", "< 0.1%"]
    few.figure.canvas.draw()
    ticks = [label.get_text() for label in few.get_xticklabels()]
    assert len(set(ticks)) == len(ticks)
    with pytest.raises(OptionError, match="of 10 cells"):
        plot.removed_cells({"no guide": 20}, 10)


# ------------------------------------------------------------------ checks


def test_pairs_with_enough_counts_and_too_few(random):
    treated, controls = random.poisson(9, 500), random.poisson(80, 500)
    passes = treated >= 7
    ax = plot.pair_quality(treated, controls, passes, (7, 7), caption=True)
    good, bad = ax.collections[:2]
    assert np.asarray(good.get_offsets())[:, 0].min() >= 7
    assert np.asarray(bad.get_offsets())[:, 0].max() < 7
    assert legend_of(ax)[0] == f"tested ({passes.sum():,})"
    assert [line.get_xdata()[0] for line in ax.lines[:1]] == [6.5]
    no_text_is_cut(ax)
    assert "Dotted" in caption_of(ax) and "Orange" in caption_of(ax)
    # Axes are where points are; bounds far below them, and colours not there, are not told.
    plenty = plot.pair_quality(treated + 400, controls + 1000, passes | True, (7, 7), caption=True)
    assert plenty.get_xlim()[0] > 100 and plenty.get_ylim()[0] > 300 and not plenty.lines
    assert "Dotted" not in caption_of(plenty) and "Orange" not in caption_of(plenty)
    assert legend_of(plenty) == ["tested (500)"]
    for axis in (plenty.xaxis, plenty.yaxis):
        assert len(tick_boxes(axis)) >= 3
    assert "1,000" in [text.get_text() for text in plenty.get_yticklabels()]
    for most in (310, 2000, 40_000, 10**6):
        ticks = tick_boxes(plot.pair_quality([300, most], [9, 70], [True, True]).xaxis)
        assert len(ticks) >= 3 and all(one.x1 < other.x0 for one, other in pairwise(ticks))
    many = random.integers(0, 10**6, (2, 20_000))
    ticks = tick_boxes(plot.pair_quality(*many, many[0] >= 7).xaxis)
    assert len(ticks) >= 6 and all(one.x1 < other.x0 for one, other in pairwise(ticks))
    crowd = plot.pair_quality(*many, many[0] >= 7).collections[:2]
    assert 1000 < sum(len(part.get_offsets()) for part in crowd) <= 4000
    with pytest.raises(ShapeError, match="shapes"):
        plot.pair_quality([1], [1, 2], [True])


def test_positive_controls_beside_negative_ones(random):
    positive = np.array([-200.0, -30.0, -2.0])
    negative = np.log10(random.random(400))
    ax = plot.power_check(positive, negative, ["STAT1", "JAK2", "x" * 20 + "y" * 20], caption=True)
    none, found = (np.asarray(part.get_offsets()) for part in ax.collections)
    np.testing.assert_allclose(found[:, 1], -positive)
    np.testing.assert_allclose(none[:, 1], -negative)
    assert np.abs(none[:, 0]).max() < 0.33 and np.abs(found[:, 0] - 1).max() < 0.33
    assert [line.get_ydata()[0] for line in ax.lines] == [np.median(-negative), 30.0, 10]
    assert "line at 10" in " ".join(ax.figure.texts[-1].get_text().split())
    assert [text.get_text() for text in ax.texts] == ["STAT1", "JAK2", "x" * 12 + "…" + "y" * 7]
    no_text_is_cut(ax)
    alone = plot.power_check(positive, [], caption=True)
    assert len(alone.lines) == 2
    assert "negative" not in alone.figure.texts[-1].get_text()
    with pytest.raises(InputError, match="positive controls"):
        plot.power_check([np.nan], negative)


@pytest.mark.parametrize("highest", [0.0, 3.0, 9.9, 10.2, 15.3, 60.0, 400.0, 9000.0])
def test_the_axis_of_positive_controls_has_ticks_where_it_bends(highest):
    ax = plot.power_check([-highest, -0.5 * highest], [-0.3], caption=True)
    ticks, top = ax.get_yticks(), ax.get_ylim()[1]
    assert top > highest
    said = " ".join(ax.figure.texts[-1].get_text().split())
    if highest <= 10:
        assert top <= 10.5 and ax.get_yscale() == "linear" and "dotted" not in said
        return
    assert 10 in ticks and ((ticks > 10) & (ticks <= top)).any() and ticks.max() <= top
    assert ax.lines[-1].get_ydata()[0] == 10 and "dotted line at 10" in said
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    no_text_is_cut(ax)


def test_points_of_like_height_stand_apart():
    offsets = beside(np.linspace(0, 1, 64))
    assert len(np.unique(offsets)) == 64
    assert np.abs(np.diff(offsets)).min() > 0.1
    assert beside(np.array([3.0])).tolist() == [0.0]


def test_fold_changes_of_controls(random):
    values = np.r_[random.normal(0.1, 0.2, 300), np.nan, -np.inf]
    ax = plot.fold_changes(values, caption=True)
    assert sum(heights_of(ax)[0]) == 300
    assert legend_of(ax) == [f"mean {values[:300].mean():+.3f}"]
    for spread in (0.03, 0.4, 7.0, 120.0):
        ticks = tick_boxes(plot.fold_changes(random.normal(-0.2, spread, 300)).xaxis)
        assert len(ticks) >= 3
        assert all(one.x1 + 4 < other.x0 for one, other in pairwise(ticks))
    assert legend_of(plot.fold_changes([-0.25, -0.25])) == ["mean −0.250"]
    with pytest.raises(InputError, match="no fold changes"):
        plot.fold_changes([np.nan])


def test_names_are_beside_their_points_and_over_nothing(random):
    """Forty close points and a crowd below: as drawn, no name is over a point or a name."""
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    x = np.r_[random.normal(0, 0.3, 40), random.normal(0, 1, 400)]
    y = np.r_[random.uniform(60, 100, 40), random.uniform(0, 20, 400)]
    names = [f"TARGET{i} on GENE{i}" for i in range(440)]
    ax = plot.volcano(x, -y, np.ones(440, dtype=bool), names)
    ax.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without their lines
    assert len(boxes) >= 4
    points = ax.transData.transform(np.column_stack([x, y]))
    for k, (text, box) in enumerate(zip(ax.texts, boxes, strict=True)):
        assert not any(box.contains(*point) for point in points), text.get_text()
        assert not any(box.overlaps(other) for other in boxes[:k]), text.get_text()
        if text.arrow_patch is None:  # then its own point is the nearest
            middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
            beyond = np.abs(points - middle) - [box.width / 2, box.height / 2]
            nearest = int(np.argmin(np.hypot(*np.maximum(beyond, 0).T)))
            assert names[nearest] == text.get_text()
    plt.close(ax.figure)
