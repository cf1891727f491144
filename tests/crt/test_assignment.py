"""Assignment of guides to cells."""

import numpy as np
import pytest

from plait.crt.assignment import assign_guides, assignment_from_table
from plait.crt.assignment_backgrounds import Backgrounds
from plait.crt.gene_data import gene_screen_data
from plait.crt.gene_screen import GeneScreen
from plait.errors import DataWarning, InputError, LabelError, OptionError
from tests.crt.gene_cases import random_data, random_screen


@pytest.mark.parametrize("mixture", ["log_link", "legacy"])
def test_mixture_finds_who_has_a_guide(mixture):
    options, has = random_screen(seed=3, n_cells=400)
    data = gene_screen_data(**options)
    found = assign_guides(data, "mixture", mixture=mixture, formula="log(response_n_umis)")
    assert not found.by_threshold
    assert (found.cells.toarray().astype(bool) == has).mean() > 0.995


def test_counts_of_other_guides_are_covariates():
    """With a guide's own counts among them, these pass for background."""
    options, has = random_screen(seed=3, n_cells=400)
    data = gene_screen_data(**options)
    found = {
        mixture: assign_guides(data, mixture=mixture).cells.toarray().astype(bool)
        for mixture in ("log_link", "legacy")
    }
    missed = {mixture: (has & ~cells).sum() / has.sum() for mixture, cells in found.items()}
    assert missed["log_link"] < 0.03 < 0.2 < missed["legacy"]
    assert not (found["log_link"] & ~has).any()


@pytest.mark.parametrize("seed", [3, 4])
def test_of_cells_with_one_guide_counts_of_others_do_not_explain_it(seed):
    """Cells without counts of others are those that have the guide, and seemed background."""
    options, has = random_screen(seed=seed, moi="low", n_cells=600)
    found = assign_guides(gene_screen_data(**options), "mixture")
    assert not found.by_threshold
    cells = found.cells.toarray().astype(bool)
    assert (has & ~cells).sum() / has.sum() < 0.01
    assert not (cells & ~has).any()


def test_backgrounds_against_designs_made_for_each_guide():
    options, _ = random_screen(seed=3, n_cells=200)
    data = gene_screen_data(**options)
    formula = "log(response_n_umis) + log(grna_n_umis + 1) + grna_n_nonzero"
    backgrounds = Backgrounds.of(data, formula, leave_out_own=True)
    guides = data.guides.toarray().astype(float)
    for column in (0, 5):
        own = guides[:, column]
        expected = np.column_stack(
            [
                np.ones(200),
                np.log(data.covariates["response_n_umis"]),
                np.log1p(guides.sum(axis=1) - own),
                (guides > 0).sum(axis=1) - (own > 0),
            ]
        )
        cells = np.flatnonzero(own).astype(np.int32)
        rows = backgrounds.without(cells, own[cells].astype(np.float32))
        np.testing.assert_allclose(rows @ rows.T / 200, np.eye(4), atol=1e-12)
        left = expected - rows.T @ (rows @ expected) / 200
        np.testing.assert_allclose(left, 0, atol=1e-9)
    # A library of one guide has no others: nothing is left to regress on.
    alone, _ = background_screen(n_cells=200)
    one = gene_screen_data(**alone)
    rows = Backgrounds.of(one, "grna_n_umis", leave_out_own=True).without(
        one.guides.indices, one.guides.data
    )
    np.testing.assert_array_equal(rows, np.ones((1, 200)))
    kept = Backgrounds.of(data, formula, leave_out_own=False)
    assert kept.without(cells, own[cells].astype(np.float32)) is kept.rows
    assert len(kept.rows) == 4


def background_screen(seed=11, n_cells=4000):
    """Return a screen of one guide with a background of counts that varies with depth."""
    random = np.random.default_rng(seed)
    depth = np.exp(0.8 * random.standard_normal(n_cells))
    has = random.random(n_cells) < 0.05
    counts = random.poisson(depth * np.where(has, 12.0, 1.0))
    return {
        "responses": random.poisson(50 * depth)[:, None].astype(float),
        "guides": counts[:, None].astype(float),
        "targets": {"grna_id": ["g"], "grna_target": ["T"]},
        "moi": "high",
        "response_names": ["a"],
        "guide_names": ["g"],
    }, has


def test_the_mixture_that_multiplies_fits_a_guide_that_multiplies():
    """sceptre adds the logarithm of the effect to the mean (its issue 220): defect 11."""
    options, has = background_screen()
    data = gene_screen_data(**options)
    errors = {}
    for mixture in ("log_link", "legacy"):
        found = assign_guides(data, mixture=mixture, formula="log(response_n_umis)")
        assert not found.by_threshold
        errors[mixture] = np.mean(found.cells.toarray()[:, 0].astype(bool) != has)
    assert errors["log_link"] < 0.02
    assert errors["log_link"] < errors["legacy"]


def test_rare_guides_are_assigned_by_the_threshold():
    options, _ = random_screen()
    guides = options["guides"].toarray()
    guides[:, 0] = 0
    guides[:9, 0] = [5, 4, 30, 1, 2, 1, 1, 1, 6]
    data = gene_screen_data(**(options | {"guides": guides}))
    found = assign_guides(data)
    assert found.by_threshold == ("T0_g0",)
    assert np.flatnonzero(found.cells.toarray()[:, 0]).tolist() == [0, 2, 8]
    assert "as no mixture fits: 1 guide" in found.summary()


def test_maximum_flags_uncertain_cells():
    options, _ = random_screen(moi="low")
    guides = np.zeros((300, 14))
    guides[:, 1] = 10
    guides[0, :3] = [2, 8, 0]  # a share of 0.8 is not above 0.8
    guides[1, :3] = [1, 8, 0]
    guides[2] = 0
    guides[3, 1] = 4
    data = gene_screen_data(**(options | {"guides": guides}))
    found = assign_guides(data)
    assert np.flatnonzero(found.is_uncertain).tolist() == [0, 2, 3]
    assert found.guides_per_cell.tolist() == [1, 1, 0] + [1] * 297


def test_the_same_for_any_threads():
    data = random_data(seed=5)
    one, two = (assign_guides(data, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.cells.indices, two.cells.indices)
    np.testing.assert_array_equal(one.cells.indptr, two.cells.indptr)


def test_tables_go_round():
    data = random_data()
    found = assign_guides(data, "thresholding")
    again = assignment_from_table(data, found.to_frame())
    assert (again.cells != found.cells).nnz == 0
    with pytest.raises(LabelError, match="no column 'cell'"):
        assignment_from_table(data, {"grna_id": ["T0_g0"]})
    with pytest.raises(LabelError, match="'nobody' in the column 'cell'"):
        assignment_from_table(data, {"grna_id": ["T0_g0"], "cell": ["nobody"]})


def test_an_assignment_is_of_these_cells_and_guides_in_this_order():
    options, _ = random_screen(moi="low")
    cells = [f"c{i}" for i in range(300)]
    data = gene_screen_data(**options, cell_names=cells)
    found = assign_guides(data)
    assert assignment_from_table(data, found) is found
    order = np.random.default_rng(0).permutation(300)
    moved = options | {
        "responses": options["responses"][order],
        "guides": options["guides"][order],
        "covariates": options["covariates"].iloc[order],
    }
    other = gene_screen_data(**moved, cell_names=[cells[i] for i in order])
    with pytest.raises(LabelError, match=r"of the same cells in .*in another order .*to_frame\(\)"):
        GeneScreen(other).set_parameters().use_assignment(found)
    screen = GeneScreen(other).set_parameters().use_assignment(found.to_frame())
    assert (screen.assignment.cells != found.cells[order]).nnz == 0
    fewer = gene_screen_data(**(options | {"targets": options["targets"][:-1]}), cell_names=cells)
    with pytest.raises(LabelError, match="the same guides in the same order"):
        assignment_from_table(fewer, found)


def test_cells_of_a_table_are_found_by_names_that_differ():
    options, _ = random_screen(moi="low")
    data = gene_screen_data(**options, cell_names=[f"c{i // 2}" for i in range(300)])
    with pytest.raises(LabelError, match="the cell of the data 'c0' occurs twice, at 1 and 2"):
        assignment_from_table(data, assign_guides(data).to_frame())


@pytest.mark.parametrize("values", [[True, False], ["true", "False"], [1, 0], ["1", "0"]])
def test_what_is_uncertain_in_a_table(values):
    data = random_data()
    table = {"grna_id": ["T0_g0"] * 2, "cell": data.cell_names[:2], "is_uncertain": values}
    np.testing.assert_array_equal(
        np.flatnonzero(assignment_from_table(data, table).is_uncertain), 0
    )
    with pytest.raises(InputError, match="guides holds 'perhaps'"):
        assignment_from_table(data, table | {"is_uncertain": ["false", "perhaps"]})


def test_guides_that_are_known_are_taken_as_they_are():
    options, has = random_screen()
    data = gene_screen_data(**(options | {"guides": has}))
    found = assign_guides(data)
    np.testing.assert_array_equal(found.cells.toarray().astype(bool), has)
    with pytest.raises(OptionError, match="came as truth values"):
        assign_guides(data, "mixture")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"method": "maximum"}, "moi is 'high'"),
        ({"mixture": "other"}, "mixture is 'other'"),
        ({"method": "thresholding", "threshold": 0}, "threshold is 0; give at least 1"),
        ({"smallest_probability": 0.0}, "smallest_probability is 0.0"),
        ({"method": "given"}, "came as counts"),
    ],
)
def test_refused(options, message):
    with pytest.raises(OptionError, match=message):
        assign_guides(random_data(), **options)


def test_no_guides_at_all():
    with pytest.warns(DataWarning, match="no cell has any guide"):
        assign_guides(random_data(), "thresholding", threshold=10_000)
