"""Figures of gene-level screens: what they take from the screen."""

import numpy as np
import pytest

from plait import crt
from plait.crt.gene_plots import cell_covariates, guide_column, pair_names, removed_of
from plait.errors import LabelError, NotAvailableError
from tests.crt.gene_cases import random_data

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def screens():
    made = {}
    for moi in ("low", "high"):
        data = random_data(moi=moi, effect=-1.5, n_cells=400, mean=4.0)
        screen = crt.GeneScreen(data).set_parameters(
            discovery_pairs=crt.trans_pairs(data),
            positive_control_pairs=crt.positive_control_pairs(data),
        )
        screen.assign_guides("thresholding").quality_control()
        screen.run_calibration_check(threads=1)
        screen.run_power_check(threads=1)
        screen.run_discovery(threads=1)
        made[moi] = screen
    return made


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("moi", ["low", "high"])
def test_expression_is_that_of_treated_cells_and_of_their_controls(screens, moi):
    screen = screens[moi]
    result = screen.discovery
    row = int(np.flatnonzero(result.pass_qc & (result.grna_target == "T0"))[0])
    gene = str(result.response_id[row])
    treated, controls = crt.pair_expression(screen, "T0", gene)
    # By brute force, cell by cell.
    has = screen.assignment.cells.toarray() > 0
    targets = screen.data.targets.targets
    counts = screen.data.responses.toarray().astype(float)[
        :, list(screen.data.response_names).index(gene)
    ]
    depth = screen.data.responses.toarray().astype(float).sum(axis=1)
    used = screen.cells.is_used
    expected = {True: [], False: []}
    for cell in np.flatnonzero(used):
        mine = set(targets[has[cell]])
        value = np.log2(1 + counts[cell] * np.median(depth[used]) / depth[cell])
        if "T0" in mine:
            expected[True].append(value)
        elif moi == "high" or mine == {"non-targeting"}:
            expected[False].append(value)
    np.testing.assert_allclose(treated, expected[True])
    np.testing.assert_allclose(controls, expected[False])
    # Cells with counts are those that the tests counted.
    assert (treated > 0).sum() == result.n_nonzero_trt[row]
    assert (controls > 0).sum() == result.n_nonzero_cntrl[row]


def test_a_guide_and_groups_of_guides_are_targets_too(screens):
    screen = screens["high"]
    one, other, both = (
        crt.pair_expression(screen, who, "gene1")[0] for who in ("T0_g0", "T0_g1", "T0_g0&T0_g1")
    )
    assert max(len(one), len(other)) < len(both) <= len(one) + len(other)
    assert len(both) == len(crt.pair_expression(screen, "T0", "gene1")[0])
    with pytest.raises(LabelError, match="no target or guide 'x'"):
        crt.pair_expression(screen, "x", "gene1")
    with pytest.raises(LabelError, match="no gene 'x'"):
        crt.pair_expression(screen, "T0", "x")


def test_violins_of_the_surest_pairs(screens):
    screen = screens["low"]
    ax = crt.plot_pairs(screen, screen.discovery, most=3, caption=True)
    names = pair_names(screen.discovery, np.arange(3))
    drawn = [text.get_text() for text in ax.get_xticklabels()]
    assert drawn[0] == "T0\non itself"
    assert drawn[1:] == [name.replace(" on ", "\non ") for name in names[1:]]


@pytest.mark.parametrize("moi", ["low", "high"])
def test_guides_and_cells(screens, moi):
    screen = screens[moi]
    figure = crt.plot_guides(screen)
    assert len(figure.axes) == 5
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == screen.assignment.cells.nnz
    counts, has = guide_column(screen, 2)
    np.testing.assert_array_equal(counts, screen.data.guides.toarray()[:, 2])
    np.testing.assert_array_equal(has, screen.assignment.cells.toarray()[:, 2] == 1)
    assert len(crt.plot_guides(screen, ["T1_g2"]).axes) == 3
    with pytest.raises(LabelError, match="'x'"):
        crt.plot_guides(screen, ["x"])
    covariates = cell_covariates(screen)
    assert len(crt.plot_cells(screen).axes) == len(covariates) + 1
    values, low, high = covariates["counts of genes"]
    outside = ((values < low) | (values > high)).sum()
    assert removed_of(screen)["counts of genes"] == outside
    assert removed_of(screen)["any reason"] == (~screen.cells.is_used).sum()


def test_checks(screens):
    screen = screens["high"]
    ax = crt.plot_gene_calibration(screen.discovery, screen.calibration, caption=True)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    tested = int(screen.discovery.pass_qc.sum())
    assert f"pairs ({tested})" in labels
    alone = crt.plot_gene_calibration(screen.calibration)
    assert "non-targeting guides" in alone.get_legend().get_texts()[1].get_text()
    power = crt.plot_power(screen.power, screen.calibration)
    assert [text.get_text() for text in power.texts] == ["T0"]
    quality = crt.plot_pair_quality(screen.discovery)
    assert f"tested ({tested})" in [t.get_text() for t in quality.get_legend().get_texts()]


def test_what_cannot_be_drawn_yet():
    screen = crt.GeneScreen(random_data())
    for draw in (crt.plot_guides, crt.plot_cells):
        with pytest.raises(NotAvailableError, match="call "):
            draw(screen)
    with pytest.raises(NotAvailableError, match="quality_control"):
        crt.pair_expression(screen, "T0", "gene1")
