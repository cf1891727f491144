"""QQ figures of screens: what is drawn, which files are written, what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from plait.crt import (
    NullHistogram,
    compute_null_pvals_from_null_stats,
    make_ntc_empirical_qq_plots,
    prepare_crt_inputs,
    qq_coords,
    qq_plot_ntc_pvals,
    run_all_genes_union_crt,
)
from plait.errors import DataWarning, InputError, LabelError, OptionError
from tests.crt.screens import reference_screen
from tests.reference_files import load, reference_file

pytest.importorskip("matplotlib").use("agg")

GENES = {"g1": "A", "g2": "B", "n1": "NTC", "n2": "safe"}


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def frame(seed, rows, columns=3):
    random = np.random.default_rng(seed)
    return pd.DataFrame(random.random((len(rows), columns)), index=list(rows))


def drawn(ax):
    """Return label to data of all lines and points of a figure."""
    found = {line.get_label(): line.get_xydata() for line in ax.lines}
    for points in ax.collections:
        if len(points.get_offsets()) and points.get_label() not in found:
            found[points.get_label()] = np.asarray(points.get_offsets())
    return found


def test_curves_of_ungrouped_controls_are_their_coordinates():
    p, stats = frame(0, "ABC"), np.random.default_rng(1).normal(size=(99, 2))
    p.index = ["A", "NTC", "safe"]
    ax = qq_plot_ntc_pvals(p, GENES, ["NTC", "safe"], null_stats=stats, title="T")
    seen = drawn(ax)
    controls = np.column_stack(qq_coords(p.loc[["NTC", "safe"]]))
    np.testing.assert_allclose(seen["NTC (raw)"], controls)
    np.testing.assert_allclose(seen["All observed"], np.column_stack(qq_coords(p)))
    null = np.column_stack(qq_coords(compute_null_pvals_from_null_stats(stats)))
    np.testing.assert_allclose(seen["null"], null)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(labels) == {"95% CI", "y=x", "All observed", "NTC (raw)", "null"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Expected -log10(p)", "Observed -log10(p)")
    assert tuple(ax.figure.get_size_inches()) == (6.0, 5.0) and ax.get_title(loc="left") == "T"


def test_one_sided_null_and_labels_of_ones_own():
    stats = np.random.default_rng(1).normal(size=50)
    ax = qq_plot_ntc_pvals(
        frame(0, ["NTC", "A"]), GENES, "NTC", null_stats=stats, null_two_sided=False,
        labels={"raw": "controls"}, colors={"raw": "black"}, conf_alpha=0.1,
        show_all_pvals=False, show_ref_line=False,
    )  # fmt: skip
    seen = drawn(ax)
    null = np.column_stack(qq_coords(compute_null_pvals_from_null_stats(stats, 1)))
    np.testing.assert_allclose(seen["null"], null)
    assert {"controls", "null"} <= set(seen) and "All observed" not in seen
    assert "90% CI" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_grouped_controls_are_pooled_and_their_spread_is_shaded():
    groups, skew = ({e: frame(10 + e, ["ntc_0", "ntc_1"]) for e in range(6)} for _ in range(2))
    p = frame(0, "AB")
    ax = qq_plot_ntc_pvals(
        p, GENES, ["NTC"], pvals_skew_df=p, null_pvals=np.arange(1, 1000) / 1000,
        ntc_group_pvals_ens=groups, ntc_group_pvals_skew_ens=list(skew.values()),
        show_ntc_ensemble_band=True, ntc_band_quantiles=[0.25, 0.5],
    )  # fmt: skip
    seen = drawn(ax)
    assert len(seen["NTC (raw)"]) == len(seen["NTC (skew)"]) == 36
    (band,) = [c for c in ax.collections if c.get_label() == "NTC ensemble IQR"]
    medians = [-np.log10(np.quantile(values, 0.5)) for values in groups.values()]
    low, high = np.quantile(medians, [0.25, 0.75])
    vertices = band.get_paths()[0].vertices
    at_half = vertices[np.isclose(vertices[:, 0], -np.log10(0.5)), 1]
    np.testing.assert_allclose([at_half.min(), at_half.max()], [low, high])


def test_a_histogram_of_the_null_draws_the_same_steps():
    p = np.repeat([0.25, 0.5, 0.75, 1.0], [3, 5, 0, 4])
    histogram = NullHistogram(np.arange(1, 5) / 4, np.array([3, 5, 0, 4]))
    whole, short = (
        drawn(qq_plot_ntc_pvals(frame(0, ["NTC"]), GENES, "NTC", null_pvals=null))["null"]
        for null in (p, histogram)
    )
    np.testing.assert_allclose(short, whole[[0, 2, 3, 7, 8, 11]])


def test_the_skew_normal_null_is_uniform_where_the_null_is_normal():
    stats = np.random.default_rng(3).normal(size=(4000, 1))
    ax = qq_plot_ntc_pvals(
        frame(0, ["NTC"]), GENES, "NTC", null_stats=stats, show_null_skew=True,
        null_skew_samples=3000, null_skew_seed=4,
    )  # fmt: skip
    x, y = drawn(ax)["null (skew)"].T
    assert len(x) == 3000
    # Kolmogorov's distance of 3000 uniform values is below 0.05 but for one in 10^6.
    assert np.abs(10**-x - 10**-y).max() < 0.05


def test_expected_grids_and_adjusted_p_values():
    p = frame(0, ["NTC", "A"])
    grid = (np.arange(3) + 1) / 4
    ax = qq_plot_ntc_pvals(p, GENES, "NTC", null_pvals=[0.5], expected_grid_raw=grid)
    np.testing.assert_allclose(drawn(ax)["NTC (raw)"][:, 0], -np.log10(grid))
    with pytest.raises(InputError, match=r"expected_grid_all has shape \(3,\) and there are 6"):
        qq_plot_ntc_pvals(p, GENES, "NTC", null_pvals=[0.5], expected_grid_all=grid)
    adjusted = pd.DataFrame(np.ones((2, 30)), index=["NTC", "A"])
    with pytest.warns(DataWarning, match="adjusted"):
        qq_plot_ntc_pvals(adjusted, GENES, "NTC", null_pvals=[0.5])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pvals_raw_df": None}, InputError, "pvals_raw_df is needed"),
        ({"null_pvals": None}, InputError, "null_pvals or null_stats"),
        ({"show_null_skew": True}, InputError, "needs null_stats"),
        ({"ntc_genes": []}, InputError, "ntc_genes is empty"),
        ({"ntc_genes": "nobody"}, LabelError, "no guide has the target 'nobody'"),
        ({"ntc_genes": "safe"}, LabelError, "pvals_raw_df has no row 'safe'"),
        ({"show_ntc_ensemble_band": True}, InputError, "needs ntc_group_pvals_ens"),
        ({"labels": {"controls": "x"}}, OptionError, "labels has 'controls'"),
        ({"conf_alpha": 0.0}, OptionError, "alpha 0.0"),
        ({"null_pvals": [np.nan]}, InputError, "at least one p-value"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, error, message):
    given = {"pvals_raw_df": frame(0, ["NTC", "A"]), "guide2gene": GENES, "ntc_genes": "NTC",
             "null_pvals": [0.1, 0.7]}  # fmt: skip
    with pytest.raises(error, match=message):
        qq_plot_ntc_pvals(**{**given, **change})


def test_groups_need_their_own_skew_normal_p_values():
    p = frame(0, ["A"])
    with pytest.raises(InputError, match="ntc_group_pvals_skew_ens"):
        qq_plot_ntc_pvals(
            p, GENES, "NTC", pvals_skew_df=p, null_pvals=[0.5], ntc_group_pvals_ens=[p]
        )
    with pytest.raises(OptionError, match="between 0 and 1"):
        qq_plot_ntc_pvals(
            p, GENES, "NTC", null_pvals=[0.5], ntc_group_pvals_ens=[p],
            show_ntc_ensemble_band=True, ntc_band_quantiles=[0.0, 0.5],
        )  # fmt: skip


@pytest.fixture(scope="module")
def crossfit():
    known = load("crt/synth_b", "ntc_empirical.npz")
    return run_all_genes_union_crt(
        prepare_crt_inputs(reference_screen("synth_b")[0]), list(known["genes"]),
        null_method="ntc_empirical", qq_crossfit=True,
        null_kwargs={"ntc_labels": ["NTC"], "guides_per_unit": 3, "n_ntc_units": 300,
                     "matching": {"n_n1_bins": 4, "n_d_bins": 3, "min_ntc_per_bin": 25}},
    )  # fmt: skip


def test_files_of_the_crossfit_are_those_of_programde(crossfit, tmp_path):
    written = make_ntc_empirical_qq_plots(crossfit, tmp_path / "qq", n_programs=2, envelope_boot=20)
    known = json.loads(reference_file("crt", "synth_b/ntc_empirical_info.json").read_text())
    names = sorted(path.relative_to(tmp_path / "qq").as_posix() for path in written)
    assert names == sorted(known["qq_files"])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_programs_are_chosen_by_name_or_position(crossfit, tmp_path):
    def names(programs):
        paths = make_ntc_empirical_qq_plots(
            crossfit, tmp_path, programs, make_per_batch=False, envelope_boot=5
        )
        return [path.name for path in paths[1:]]

    assert names(None) == []
    expected = ["qq_ntc_empirical_program_program_3_meta.png"]
    assert names("program_3") == names([3]) == names(["program_3"]) == expected
    with pytest.raises(OptionError, match="no program 5; there are 5"):
        names([5])
    with pytest.raises(LabelError, match="'x'"):
        names("x")
    with pytest.raises(InputError, match="ntc_crossfit"):
        make_ntc_empirical_qq_plots({}, tmp_path)


def test_names_become_safe_file_names(crossfit, tmp_path):
    renamed = {"betas_df": crossfit["betas_df"].rename(columns={"program_0": "a/b c"})}
    parts = crossfit["ntc_crossfit"]
    renamed["ntc_crossfit"] = {
        name: value.rename(columns={"program_0": "a/b c"}) if hasattr(value, "columns") else value
        for name, value in parts.items()
    }
    (_, path) = make_ntc_empirical_qq_plots(
        renamed, tmp_path, "a/b c", make_per_batch=False, envelope_boot=5
    )
    assert path == tmp_path / "qq_ntc_empirical_program_a_b_c_meta.png" and path.exists()
