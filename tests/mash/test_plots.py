"""The figures of mash results carry the result's numbers and labels."""

import matplotlib as mpl
import numpy as np
import pytest

from plait import mash as pm
from plait.errors import InputError, LabelError
from plait.mash import plots

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    sim = pm.simple_sims(50, 4, 0.7, seed=1)
    bhat, shat = sim["Bhat"].copy(), sim["Shat"].copy()
    bhat[3, 1] = shat[3, 1] = np.nan
    names = ("liver", "lung", "skin", "brain")
    ids = [f"rs{j}" for j in range(len(bhat))]
    data = pm.mash_set_data(bhat, shat, alpha=1, condition_names=names, effect_names=ids)
    return data, pm.mash(data, pm.cov_canonical(data))


def ticks(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_forest_of_an_effect(fitted):
    data, result = fitted
    by_name = pm.mash_plot_meta(result, "rs3", data=data, caption=True)
    assert ticks(by_name) == ["liver", "lung", "skin", "brain"]
    assert by_name.get_title(loc="left") == "rs3"
    points = by_name.collections[-1].get_offsets()[:, 0]
    np.testing.assert_array_equal(points, result.posterior_mean[3])
    by_number = pm.mash_plot_meta(result, -1, "x", "y", ["a", "b", "c", "d"], 1.0, boxes=True)
    assert ticks(by_number) == ["a", "b", "c", "d"]
    assert (by_number.get_xlabel(), by_number.get_ylabel()) == ("x", "y")


def test_unknown_effects(fitted):
    result = fitted[1]
    with pytest.raises(LabelError, match="rs999"):
        pm.mash_plot_meta(result, "rs999")
    with pytest.raises(InputError, match="0 to 199"):
        pm.mash_plot_meta(result, 200)
    bare = pm.mash(pm.mash_set_data(np.eye(4) * 9), {"identity": np.eye(4)})
    with pytest.raises(LabelError, match="no names"):
        pm.mash_plot_meta(bare, "rs1")


def test_sharing(fitted):
    result = fitted[1]
    ax = pm.plot_sharing(result, caption=True)
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(drawn, pm.get_pairwise_sharing(result))
    assert ticks(ax) == ["liver", "lung", "skin", "brain"]
    assert "same sign" in pm.plot_sharing(result, factor=0).figure.axes[1].get_ylabel()


def test_weights_and_patterns(fitted):
    result = fitted[1]
    ax = pm.plot_weights(result, caption=True)
    assert "null" in ticks(ax)
    panels = plots.plot_patterns(result, most=3, caption=True)
    assert 1 <= len(panels) <= 3
    assert "identity" in pm.plot_pattern(result, "identity").get_title(loc="left")
    with pytest.raises(LabelError, match="they are identity"):
        pm.plot_pattern(result, "nonsense")


def test_shrinkage_leaves_out_missing_cells(fitted):
    data, result = fitted
    ax = pm.plot_shrinkage(result, data, caption=True)
    counts = [text.get_text().split("(")[1].rstrip(")") for text in ax.get_legend().get_texts()]
    assert sum(int(count) for count in counts) == 4 * 200 - 1


def test_figures_of_the_workflow(fitted):
    data = fitted[0]
    workflow = pm.mash_train_apply(data, pm.cov_canonical(data), n_train=100)
    assert ticks(pm.mash_plot_meta(workflow, "rs3")) == ["liver", "lung", "skin", "brain"]
    assert ticks(pm.plot_sharing(workflow))[0] == "liver"
