"""Figures show what they are given, at 5 contexts as well as at 44."""

import matplotlib as mpl
import numpy as np
import pytest

from plait import plot
from plait.errors import DependencyError, OptionError, OutputError, ShapeError
from plait.plot.patterns import top_pattern
from plait.plot.sharing import clustered_order

mpl.use("Agg")
WIDTHS = (1, 2, 5, 44)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def random():
    return np.random.default_rng(3)


def labels_of(ax):
    ax.figure.canvas.draw()
    return [text.get_text() for text in ax.get_yticklabels()]


def no_text_is_cut(ax):
    """Everything that is drawn lies inside the figure."""
    ax.figure.canvas.draw()
    whole, drawn = ax.figure.bbox, ax.get_tightbbox()
    assert drawn.x0 >= whole.x0 - 1
    assert drawn.y0 >= whole.y0 - 1
    assert drawn.x1 <= whole.x1 + 1
    assert drawn.y1 <= whole.y1 + 1


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("boxes", [False, True])
def test_forest(random, width, boxes):
    mean, sd = random.normal(size=width), random.uniform(0.1, 1.0, width)
    names = [f"tissue {i}" for i in range(width)]
    ax = plot.forest(mean, sd, names, boxes=boxes, title="rs1", caption=False)
    assert labels_of(ax) == names
    low, high = ax.get_ylim()
    assert low > high, "the first context is on top"
    points = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(points[:, 0], mean)
    np.testing.assert_allclose(ax.figure.get_figheight(), max(2.0, 0.4 * width))
    bars = ax.containers[0][2][0].get_segments()
    np.testing.assert_allclose([s[1][0] - s[0][0] for s in bars], 2 * 1.96 * sd)
    no_text_is_cut(ax)


def test_forest_marks_what_is_uncertain(random):
    ax = plot.forest([1.0, 2.0, np.nan], [0.5, 0.0, np.nan], lfsr=[0.01, 0.3, np.nan], boxes=True)
    faces = ax.collections[-1].get_facecolors()
    assert not np.allclose(faces[0], faces[1])
    assert labels_of(ax) == ["1", "2", "3"]


def test_forest_before_and_after(random):
    ax = plot.forest([1.0, 2.0], [0.5, 0.2], before=([2.0, 3.0], [1.0, 1.0]), caption=True)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["posterior", "estimate"]


def test_box_areas_follow_the_precision():
    ax = plot.forest([0.0, 0.0], [0.5, 1.0], boxes=True)
    areas = ax.collections[-1].get_sizes()
    np.testing.assert_allclose(areas[0] / areas[1], 4.0)


@pytest.mark.parametrize("width", WIDTHS)
def test_sharing(random, width):
    matrix = random.uniform(0, 1, (width, width))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    if width > 1:
        matrix[0, 1] = matrix[1, 0] = np.nan
    names = [f"tissue_number_{i}" for i in range(width)]
    ax = plot.sharing(matrix, names, caption=True)
    shown = labels_of(ax)
    assert sorted(shown) == sorted(names)
    order = [names.index(name) for name in shown]
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(drawn, matrix[np.ix_(order, order)])
    assert order == list(range(width)) or width > 8
    no_text_is_cut(ax)
    sizes = {text.get_fontsize() for text in ax.get_yticklabels()}
    assert min(sizes) >= 4


def test_clustering_puts_groups_together():
    groups = np.array([0, 1, 0, 1, 0, 1])
    matrix = np.where(groups[:, None] == groups, 0.9, 0.1)
    np.fill_diagonal(matrix, 1.0)
    order = clustered_order(matrix)
    assert sorted(order) == list(range(6))
    assert (np.diff(groups[order]) != 0).sum() == 1
    assert groups[order[0]] == groups[0]


def test_weights_are_sorted_and_add_up(random):
    values = random.dirichlet(np.ones(60) * 0.2)
    names = ["null", *(f"U{i}" for i in range(59))]
    ax = plot.weights(values, names, largest=10)
    heights = [bar.get_width() for bar in ax.patches]
    assert heights[:10] == sorted(heights[:10], reverse=True)
    np.testing.assert_allclose(sum(heights), 1.0)
    assert labels_of(ax)[-1] == "50 others"
    no_text_is_cut(ax)


def test_a_square_between_long_names_is_written_whole(tmp_path):
    names = ["Biochem.HDL", "Biochem.LDL", "Biochem.Tot.Cholesterol", "Obesity.BMI"]
    ax = plot.sharing(np.eye(4), names, caption=True)
    plot.save_figure(ax, tmp_path / "sharing.png")
    title = ax.get_tightbbox()  # as it was laid out for the file
    assert title.y1 <= ax.figure.bbox.y1 + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_patterns(random, width):
    vectors = random.normal(size=(3, width))
    stack = np.einsum("ki,kj->kij", vectors, vectors)
    panels = plot.patterns(stack, [f"c{i}" for i in range(width)], ["a", "b", "c"], caption=True)
    assert len(panels) == 3
    for panel, vector in zip(panels, vectors, strict=True):
        drawn = np.array([bar.get_width() for bar in panel.patches])
        np.testing.assert_allclose(drawn, vector / vector[np.argmax(abs(vector))], atol=1e-7)
        assert "100% of the matrix" in panel.get_title(loc="left")


def test_top_pattern_of_nothing():
    vector, share = top_pattern(np.zeros((3, 3)))
    assert np.abs(vector).max() == 1
    assert share == 0


def test_shrinkage_counts_every_point(random):
    effect = random.normal(size=(30, 4))
    effect[0, 0] = np.nan
    rate = random.uniform(0, 1, effect.shape)
    ax = plot.shrinkage(effect, 0.5 * effect, rate, caption=True)
    counts = [
        int(text.get_text().split("(")[1].rstrip(")")) for text in ax.get_legend().get_texts()
    ]
    assert sum(counts) == 119
    no_text_is_cut(ax)


def test_drawing_on_given_axes(random):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4)
    assert plot.forest([1.0], [1.0], ax=axes[0]) is axes[0]
    assert plot.sharing(np.eye(3), ax=axes[1]) is axes[1]
    assert plot.weights([0.4, 0.6], ax=axes[2]) is axes[2]
    assert plot.patterns(np.eye(2)[None], axes=[axes[3]])[0] is axes[3]
    assert figure.axes[0] is axes[0]


def test_the_style_ends_with_the_picture():
    before = dict(mpl.rcParams)
    plot.forest([1.0], [1.0])
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot.forest([1.0, 2.0], [1.0]),
        lambda: plot.forest([[1.0]], [[1.0]]),
        lambda: plot.forest([1.0], [1.0], ["a", "b"]),
        lambda: plot.sharing(np.ones((2, 3))),
        lambda: plot.sharing(np.ones((2, 2)), ["a"]),
        lambda: plot.weights(np.ones((2, 2))),
        lambda: plot.patterns(np.eye(3)),
        lambda: plot.patterns(np.ones((1, 2, 3))),
        lambda: plot.shrinkage([1.0], [1.0, 2.0], [0.5]),
    ],
)
def test_wrong_shapes(draw):
    with pytest.raises(ShapeError):
        draw()


def test_wrong_options():
    with pytest.raises(OptionError, match="ci"):
        plot.forest([1.0], [1.0], ci=0)
    with pytest.raises(OptionError, match="largest"):
        plot.weights([1.0], largest=0)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_saved_figures_are_the_same_file_twice(tmp_path, suffix):
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        plot.save_figure(plot.weights([0.2, 0.8], ["null", "identity"]), path)
    first, second = (path.read_bytes() for path in paths)
    assert len(first) > 1000
    assert suffix == "svg" or first == second


def test_save_refuses(tmp_path):
    ax = plot.weights([1.0])
    with pytest.raises(OutputError, match=r"\.png"):
        plot.save_figure(ax, tmp_path / "figure.docx")
    (tmp_path / "there.png").write_text("precious")
    with pytest.raises(OutputError, match="overwrite"):
        plot.save_figure(ax, tmp_path / "there.png")
    assert (tmp_path / "there.png").read_text() == "precious"
    plot.save_figure(ax, tmp_path / "there.png", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]


def test_without_matplotlib(monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DependencyError, match=r"pip install 'plait\[plot\]'"):
        plot.forest([1.0], [1.0])
