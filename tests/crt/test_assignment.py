"""Assignment of guides to cells."""

import numpy as np
import pytest

from plait.crt.assignment import assign_guides, assignment_from_table
from plait.crt.assignment_signal_kernels import signal_posterior
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


def count_screen(seed, n_cells, n_guides, per_cell, background, mean=30.0):
    """Return a screen of ``per_cell`` guides in every cell, and who has counts of which.

    ``background`` is the mean of all guides' together, as a share of a cell's own guides' counts.
    """
    random = np.random.default_rng(seed)
    order = random.random((n_cells, n_guides)).argsort(axis=1)
    means = (
        mean * random.gamma(2.0, 0.5, order.shape) * np.exp(0.3 * random.standard_normal(n_guides))
    )
    counts = np.where(order < per_cell, random.poisson(means), 0)
    has = counts > 0
    ambient = background * counts.sum(axis=1, keepdims=True) / n_guides
    counts = counts + random.poisson(ambient, counts.shape)
    names = [f"g{j}" for j in range(n_guides)]
    return {
        "responses": random.poisson(5.0, (n_cells, 20)).astype(float),
        "guides": counts.astype(float),
        "targets": {"grna_id": names, "grna_target": names},
        "moi": "high",
        "response_names": [f"gene{j}" for j in range(20)],
        "guide_names": names,
    }, has


def errors(data, has, method="mixture", **options):
    """Return who is missed and who is wrongly said to have a guide, as shares of who has it."""
    found = assign_guides(data, method, **options)
    assert not found.by_threshold
    cells = found.cells.toarray().astype(bool)
    return (has & ~cells).sum() / has.sum(), (cells & ~has).sum() / has.sum()


@pytest.mark.parametrize("moi", ["high", "low"])
@pytest.mark.parametrize("seed", [3, 4])
def test_covariates_do_not_explain_the_guides(seed, moi):
    """A background that is fitted to all cells does: sceptre's in cells of several guides."""
    options, has = random_screen(seed=seed, moi=moi, n_cells=600)
    data = gene_screen_data(**options)
    assert errors(data, has) == (0.0, 0.0)
    if moi == "high":
        assert errors(data, has, mixture="legacy")[0] > 0.1


@pytest.mark.parametrize("per_cell", [1, 2, 5, 10])
@pytest.mark.parametrize("background", [0.02, 0.4])
def test_any_number_of_guides_in_a_cell(per_cell, background):
    """Of 20 guides: at 10 in a cell half of the cells have each."""
    options, has = count_screen(per_cell, 1000, 20, per_cell, background)
    data = gene_screen_data(**options)
    missed, wrong = errors(data, has)
    assert wrong < 0.01
    assert missed + wrong < sum(errors(data, has, "thresholding"))
    if per_cell < 10:  # sceptre's finds no guide at all there, and warns
        assert missed + wrong < sum(errors(data, has, mixture="legacy"))
    assert missed < (0.03 if background == 0.02 else 0.13)


def test_a_background_alone_has_no_guide():
    random = np.random.default_rng(5)
    options, _ = count_screen(5, 1000, 20, 1, 0.0)
    counts = random.poisson(4.0, (1000, 20)).astype(float)
    data = gene_screen_data(**(options | {"guides": counts}))
    with pytest.warns(DataWarning, match="no cell has any guide"):
        assert assign_guides(data).by_threshold == ()


def test_the_mixture_is_a_fixed_point_of_its_equations():
    """By SciPy's densities and a regression solved anew, from the probabilities found."""
    from scipy.optimize import minimize, root
    from scipy.stats import nbinom, poisson

    random = np.random.default_rng(2)
    n, size, mean = 3000, 2.5, 12.0
    design = np.vstack([np.ones(n), random.standard_normal(n)])
    has = random.random(n) < 0.1
    counts = random.poisson(np.exp(-0.5 + 0.6 * design[1])).astype(float)
    counts[has] = random.poisson(mean * random.gamma(size, 1 / size, has.sum())) + 1.0
    cells = np.flatnonzero(counts).astype(np.int32)
    own = counts[cells]
    levels, level_of = np.unique(own, return_inverse=True)
    posterior = np.empty(len(own))
    starts = np.array([5.0])
    assert signal_posterior(design, cells, own, levels, level_of, starts, posterior)
    weight = np.ones(n)
    weight[cells] = 1.0 - posterior

    def loss(b):
        eta = b @ design
        return weight @ (np.exp(eta) - counts * eta) - 0.5 * b[0] + 0.5 * b[1] ** 2

    background = np.exp(minimize(loss, np.zeros(2), tol=1e-12).x @ design)[cells]
    first, second = (posterior @ own**k / posterior.sum() for k in (1, 2))

    def moments(logs):
        m, s = np.exp(logs)
        seen = 1.0 - (s / (s + m)) ** s
        return [m / seen - first, (m + m**2 / s + m**2) / seen - second]

    m, s = np.exp(root(moments, np.log([mean, size])).x)
    assert s > 1.0
    share = posterior.sum() / n
    with_guide = share * nbinom.pmf(own, s, s / (s + m)) / (1.0 - (s / (s + m)) ** s)
    without = (1.0 - share) * poisson.pmf(own, background)
    expected = np.where(own > background, with_guide / (with_guide + without), 0.0)
    np.testing.assert_allclose(posterior, expected, atol=1e-3)
    assert ((posterior > 0.01) & (posterior < 0.99)).sum() > 100


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


def test_the_mixture_fits_a_guide_that_multiplies():
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
