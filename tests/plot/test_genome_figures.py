"""Manhattan and QQ plots: what is drawn, thinned, named and coloured, for one trait or many."""

from dataclasses import replace
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text

from plait import gwas, plot
from plait.errors import LabelError, OptionError, ShapeError
from plait.gwas.results import AssociationResult
from plait.numerics.uniformity import inflation_of_medians
from plait.plot.manhattan import along_genome, shade_of, thinned
from plait.plot.style import COLOURS, GREY
from plait.provenance import Provenance

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def scanned(n_traits, n_variants=3000):
    """Uniform p-values, and a peak of each trait of its own; the first one is not tested."""
    random = np.random.default_rng(n_traits)
    values = np.log10(random.uniform(size=(n_variants, n_traits)))
    for k in range(n_traits):
        values[100 * k + 50 : 100 * k + 55, k] = -10.0 - k
    values[0] = np.nan
    return AssociationResult(
        beta=values * 0,
        se=values * 0 + 1,
        log10p=values,
        n=np.full(values.shape, 400),
        frequency=np.full(n_variants, 0.3),
        chrom=np.repeat(["1", "2", "X"], n_variants // 3),
        pos=np.tile(np.arange(1, n_variants // 3 + 1), 3),
        id=np.array([f"rs{k}" for k in range(n_variants)]),
        oa=np.full(n_variants, "A"),
        ea=np.full(n_variants, "G"),
        traits=tuple(f"t{k}" for k in range(n_traits)),
        V0=np.eye(n_traits),
        filtered={},
    )


def legend_of(ax):
    found = ax.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def heights_by_colour(ax):
    drawn = {}
    for points in ax.collections:
        if isinstance(points, mpl.collections.PathCollection) and len(points.get_offsets()):
            colour = mpl.colors.to_hex(points.get_facecolor()[0]).upper()
            drawn.setdefault(colour, []).extend(points.get_offsets()[:, 1].tolist())
    return drawn


def caption_of(ax):
    return " ".join(" ".join(text.get_text() for text in ax.figure.texts).split())


@pytest.mark.parametrize("n_traits", [1, 4, 12])
def test_manhattan_of_all_traits(n_traits):
    result = scanned(n_traits)
    ax = gwas.plot_manhattan(result, caption=True)
    ax.figure.canvas.draw()
    drawn = heights_by_colour(ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "X"]
    if n_traits == 1:
        assert ax.get_title("left") == "t0"
        assert legend_of(ax) == []
        assert {text.get_text() for text in ax.texts} >= {"rs50"}
        return
    assert ax.get_title("left") == "surest of all traits"
    own = range(max(n_traits - 8, 0), n_traits)  # the highest peaks
    for colour, k in zip(COLOURS, own, strict=False):
        assert drawn[colour.upper()] == [10.0 + k] * 5
    others = n_traits - len(own)
    assert legend_of(ax) == [f"t{k}" for k in own] + ([f"{others} others"] if others else [])
    assert (GREY.upper() in drawn) == bool(others)
    # Below the line, traits are not told apart.
    assert sum(len(values) for values in drawn.values()) >= 2999


@pytest.mark.parametrize(
    "heading", ["surest of all traits", "interaction with a long name of some"]
)
@pytest.mark.parametrize("letters", [3, 14, 24, 40])
def test_long_names_of_traits_are_not_over_the_title(letters, heading):
    traits = [f"{k:x>{letters}}" for k in range(8)]
    logs = -10.0 - np.arange(8)
    ax = plot.manhattan(
        ["1"] * 8, range(8), logs, traits=traits, trait_of=range(8), title=heading, caption=True
    )
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    title = next(text for text in (ax.title, ax._left_title) if text.get_text())
    assert legend_of(ax) == traits
    assert title.get_text() == heading
    assert title.get_window_extent().x1 < legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= ax.figure.bbox.x1


@pytest.mark.parametrize("letters", [4, 12, 30])
@pytest.mark.parametrize("count", [50, 3000])
def test_names_of_peaks_are_not_over_numbers(letters, count):
    """At the ends of the genome they begin, or end, with the axes, and none is over another."""
    logs = np.full(count, -1.0)
    logs[[0, count // 8, count // 2, -2, -1]] = -20.0, -20.3, -30.0, -20.2, -20.1
    names = [f"{k:x>{letters}}" for k in range(count)]
    ax = plot.manhattan(["1"] * count, range(count), logs, labels=names, caption=True)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    numbers = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert len(boxes) >= 3
    for box in boxes:
        assert ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1
        assert not any(box.overlaps(number) for number in numbers)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize("n_traits", [1, 2, 4, 10])
@pytest.mark.parametrize("seed", [1, 2])
def test_names_of_peaks_are_beside_all_columns(n_traits, seed):
    """Over no point, and not between the points of another peak, also at the ends of the genome."""
    random = np.random.default_rng(seed)
    chrom = np.repeat([str(k + 1) for k in range(22)], 200)
    logs = np.log10(random.random(len(chrom)))
    # Peaks side by side, on the first and on the last variant, and anywhere.
    peaks = np.array([0, 700, 740, 790, 840, 900, len(chrom) - 1, *random.integers(1100, 4300, 9)])
    tops = np.array([33, 40, 39, 38, 37, 36, 35, *random.uniform(8, 32, 9)])
    for peak, top in zip(peaks, tops, strict=True):
        for step, share in enumerate((1.0, 0.85, 0.6, 0.4)):
            logs[max(peak - step, 0)] = min(-top * share, logs[max(peak - step, 0)])
    trait_of = random.integers(0, n_traits, len(chrom))
    ax = plot.manhattan(
        chrom,
        np.tile(np.arange(200), 22),
        logs,
        labels=[f"rs{k + 10**7}" for k in range(len(chrom))],
        traits=[f"t{k}" for k in range(n_traits)] if n_traits > 1 else None,
        trait_of=trait_of if n_traits > 1 else None,
        title="several",
        caption=True,
    )
    ax.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the lines to points
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    places = np.concatenate([points.get_offsets() for points in ax.collections])
    points = ax.transData.transform(places[~np.isnan(places).any(axis=1)])
    summits = points[points[:, 1] > ax.transData.transform((0, 8))[1]]
    for box in boxes:
        assert ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 and box.y1 <= ax.bbox.y1
        assert not box.count_contains(points)
        across = (box.x0 < summits[:, 0]) & (summits[:, 0] < box.x1)
        assert not (across & (summits[:, 1] > box.y0)).any()


def test_names_of_peaks_in_a_part_of_a_figure():
    import matplotlib.pyplot as plt

    ax = plt.figure().subfigures(1, 2)[1].subplots()
    plot.manhattan(["1"] * 9, range(9), np.full(9, -20.0), labels=list("abcdefghi"), ax=ax)
    assert len(ax.texts) == 5


def test_manhattan_of_one_of_many():
    result = scanned(4)
    ax = gwas.plot_manhattan(result, "t2")
    assert ax.get_title("left") == "t2" and legend_of(ax) == []
    heights = np.concatenate(list(heights_by_colour(ax).values()))
    np.testing.assert_allclose(np.sort(heights), np.sort(-result.log10p[1:, 2]))
    with pytest.raises(LabelError, match="there is no trait 'x'; there are t0, t1"):
        gwas.plot_manhattan(result, "x")
    with pytest.raises(OptionError, match="name_peaks"):
        plot.manhattan(["1"], [1], [-1.0], name_peaks=-1)
    with pytest.raises(ShapeError, match="1, 2 and 1 entries"):
        plot.manhattan(["1"], [1, 2], [-1.0])
    with pytest.raises(ShapeError, match="trait_of has 2 entries for 1"):
        plot.manhattan(["1"], [1], [-1.0], trait_of=[0, 1])
    with pytest.raises(ShapeError, match="1 labels were given for 2 traits"):
        plot.manhattan(["1"], [1], [-9.0], traits=["a"], trait_of=[1])


def test_manhattan_without_hits_has_no_legend():
    of_two = {"traits": ["a", "b"], "trait_of": [0, 1], "caption": True}
    ax = plot.manhattan(["1", "1"], [1, 2], [-1.0, np.nan], **of_two)
    assert legend_of(ax) == []
    assert "Colours" not in caption_of(ax)
    assert "Colours: the trait" in caption_of(
        plot.manhattan(["1", "1"], [1, 2], [-9, -1], **of_two)
    )


def test_thinning_keeps_what_stands_out():
    random = np.random.default_rng(0)
    heights = -np.log10(random.uniform(size=200_000))
    across = np.arange(200_000.0)
    heights[7] = np.nan
    shown = thinned(across, heights)
    high = np.flatnonzero(heights > 3)
    assert set(high) <= set(shown)
    assert len(high) + 10_000 < len(shown) <= len(high) + 20_000
    assert 7 not in shown
    np.testing.assert_array_equal(thinned(across[:500], heights[:500]), np.r_[:7, 8:500])


@pytest.mark.parametrize("n", [50_000, 1_000_000])
@pytest.mark.parametrize("most", [300, 20_000])
def test_thinning_reaches_to_the_end_of_the_genome(n, most):
    """However many points there are, every part of the picture keeps some of its own."""
    heights = -np.log10(np.random.default_rng(1).uniform(size=n))
    heights[::3] += 3.0
    across = np.arange(float(n))
    shown = thinned(across, heights, most, most)
    for part in (shown[heights[shown] <= 3], shown[heights[shown] > 3]):
        assert most / 4 < len(part) <= most
        counts = np.histogram(across[part], bins=10, range=(0, n))[0]
        assert counts.min() > 0.7 * counts.max()
    assert heights.argmax() in shown


@pytest.mark.parametrize("n_traits", [1, 4, 12])
def test_qq_of_all_traits(n_traits):
    result = scanned(n_traits)
    ax = gwas.plot_qq(result, caption=True)
    ax.figure.canvas.draw()
    inflation = np.array(
        [inflation_of_medians(-np.median(column[1:])) for column in result.log10p.T]
    )
    own = np.arange(max(n_traits - 8, 0), n_traits)  # the highest peaks
    expected = [f"t{k}, lambda {inflation[k]:.2f}" for k in own]
    others = np.setdiff1d(np.arange(n_traits), own)
    if len(others):
        low, high = inflation[others].min(), inflation[others].max()
        expected.append(f"{len(others)} others, lambda {low:.2f} to {high:.2f}")
    assert legend_of(ax) == expected
    drawn = heights_by_colour(ax)
    for colour, k in zip(COLOURS, own, strict=False):
        assert max(drawn[colour.upper()]) == 10.0 + k
    alone = gwas.plot_qq(result, "t0")
    assert alone.get_title("left") == "t0"
    assert legend_of(alone) == [f"lambda {inflation[0]:.2f}"]


@pytest.mark.parametrize("model", ["linear", "mixed", "whole-genome"])
def test_the_caption_advises_no_model_that_was_used(model):
    result = scanned(1)
    made = replace(result, provenance=Provenance("gwas scan", {"model": model}))
    words = gwas.plot_qq(made, caption=True).figure.get_supxlabel().replace("\n", " ")
    assert ("A mixed model tells them apart" in words) == (model == "linear")
    assert ("are allowed for" in words) == (model != "linear")


def test_qq_of_a_trait_that_was_not_tested():
    values = np.log10(np.random.default_rng(0).uniform(size=(500, 2)))
    values[:, 1] = np.nan
    ax = plot.qq(values, ["a", "b"])
    assert legend_of(ax)[0].startswith("a, lambda ")
    assert np.isnan(inflation_of_medians(np.nan))
    with pytest.raises(ShapeError, match="must hold some p-values"):
        plot.qq(values[:, 1])


@pytest.mark.parametrize("n", [1, 2, 301, 300_000])
def test_qq_shows_the_order_statistics(n):
    """Of numbers that come in parts too: exactly above 3, elsewhere within what can be seen."""
    random = np.random.default_rng(n)
    values = np.log10(random.beta(0.8, 1.0, size=n))
    ordered = np.sort(values)
    values = np.r_[values, np.nan, -np.inf, np.inf]
    ax = plot.qq(random.permutation(values))
    points = next(p for p in ax.collections if isinstance(p, mpl.collections.PathCollection))
    expected, observed = points.get_offsets().T
    ranks = np.rint(n * 10**-expected + 0.5).astype(int)
    assert len(np.unique(ranks)) == len(ranks) >= min(n, 300)
    np.testing.assert_allclose(observed, -ordered[ranks - 1], rtol=0, atol=2.4e-5)
    high = ordered[: np.searchsorted(ordered, -3.0)]
    np.testing.assert_array_equal(np.sort(observed[observed > 3]), np.sort(-high))
    assert legend_of(ax) == [f"lambda {float(inflation_of_medians(-np.median(ordered))):.2f}"]


def test_the_band_holds_uniform_p_values():
    random = np.random.default_rng(1)
    ax = plot.qq(np.log10(random.uniform(size=4000)))
    band = ax.collections[0].get_paths()[0].vertices
    points = next(p for p in ax.collections if isinstance(p, mpl.collections.PathCollection))
    expected, observed = points.get_offsets().T
    middle = (expected > 0.5) & (expected < 2.5)
    half = len(band) // 2
    edges = [band[1:half], band[half + 1 : -1]]
    bounds = []
    for edge in edges:
        order = np.argsort(edge[:, 0])
        bounds.append(np.interp(expected[middle], edge[order, 0], edge[order, 1]))
    inside = (observed[middle] >= np.min(bounds, axis=0)) & (
        observed[middle] <= np.max(bounds, axis=0)
    )
    assert inside.mean() > 0.9


def test_variants_without_a_place_come_last():
    """In grey, one beside the other, in their share of the picture; alone as others are."""
    result = replace(scanned(1), chrom=np.repeat(["0", "1", "2"], 1000), pos=np.arange(1, 3001))
    ax = gwas.plot_manhattan(result)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "unplaced"]
    across, ticks, number = along_genome(result.chrom, result.pos.astype(float))
    assert (across[:1000].min() > across[1000:].max()) and (number[:1000] == 2).all()
    np.testing.assert_allclose(np.diff(across[:1000]), across[1] - across[0])
    assert np.ptp(across[:1000]) == pytest.approx(np.ptp(across[1000:2000]), rel=0.01)
    assert shade_of(number, ticks)[[0, 1000, 2000]].tolist() == [2, 0, 1]
    assert max(heights_by_colour(ax)[GREY.upper()]) == 10.0
    alone = replace(result, chrom=np.repeat("0", 3000))
    across, ticks, number = along_genome(alone.chrom, alone.pos.astype(float))
    assert [name for name, _ in ticks] == ["unplaced"] and not shade_of(number, ticks).any()
    captions = {"a column of points": result, "places of the variants are not known": alone}
    for said, found in captions.items():
        drawn = gwas.plot_manhattan(found, caption=True).figure
        assert said in " ".join(drawn.get_supxlabel().split())
        mpl.pyplot.close(drawn)
    assert across.tolist() == list(range(3000))


@pytest.mark.parametrize("n_traits", [1, 3])
def test_pictures_are_the_same_of_a_store_that_is_read_in_parts(tmp_path, n_traits):
    """More variants than are read at once, also where a chromosome comes twice."""
    size, pictures = 70_000, []
    result = scanned(n_traits, 3 * size)
    result = replace(result, chrom=np.repeat(["2", "0", "X", "2"], [size, 9, 2 * size - 10, 1]))
    result.save(tmp_path / "a.zarr")
    for found in (result, AssociationResult.open(tmp_path / "a.zarr")):
        for draw in (gwas.plot_manhattan, gwas.plot_qq):
            figure = draw(found).figure
            figure.canvas.draw()
            pictures.append(bytes(figure.canvas.buffer_rgba()))
    assert pictures[:2] == pictures[2:] and pictures[0] != pictures[1]
