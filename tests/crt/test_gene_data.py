"""Import of a gene-level screen: its covariates, its formula, and what is refused."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from plait.crt import gene_data
from plait.crt.assignment import assign_guides
from plait.crt.gene_data import gene_screen_data, gene_screen_from_anndata, read_gene_screen
from plait.crt.gene_design import (
    GeneDesign,
    default_formula,
    design_columns,
    left_out_by_default,
)
from plait.crt.layouts import target_table
from plait.errors import (
    FileFormatError,
    InputError,
    InputTypeError,
    LabelError,
    MissingCovariateError,
    OptionError,
    ShapeError,
)
from tests.crt.gene_cases import random_screen


def made(**changes):
    options, _ = random_screen()
    return gene_screen_data(**(options | changes))


def test_covariates_of_counts():
    options, _ = random_screen()
    names = ["MT-A", "mt-b", *options["response_names"][2:]]
    data = gene_screen_data(**(options | {"response_names": names}))
    counts = options["responses"].toarray()
    guides = options["guides"].toarray()
    np.testing.assert_array_equal(data.covariates["response_n_umis"], counts.sum(axis=1))
    np.testing.assert_array_equal(data.covariates["response_n_nonzero"], (counts > 0).sum(axis=1))
    np.testing.assert_array_equal(data.covariates["grna_n_umis"], guides.sum(axis=1))
    np.testing.assert_array_equal(data.covariates["grna_n_nonzero"], (guides > 0).sum(axis=1))
    np.testing.assert_allclose(
        data.covariates["response_p_mito"], counts[:, :2].sum(axis=1) / counts.sum(axis=1)
    )
    np.testing.assert_allclose(
        data.covariates["grna_max_fraction"], guides.max(axis=1) / np.maximum(guides.sum(axis=1), 1)
    )
    assert "response_p_mito" not in made().covariates


def test_inputs_stay_as_they_are():
    options, _ = random_screen()
    before = options["responses"].copy()
    data = gene_screen_data(**options)
    assert (before != options["responses"]).nnz == 0
    assert data.responses.shape == before.shape
    dense = gene_screen_data(**(options | {"responses": before.toarray()}))
    assert (dense.responses != data.responses).nnz == 0
    frame = pl.DataFrame(options["targets"].to_dict(orient="list"))
    again = gene_screen_data(**(options | {"targets": frame}))
    np.testing.assert_array_equal(again.targets.targets, data.targets.targets)


def test_guides_of_one_vector_are_taken_together():
    options, _ = random_screen()
    table = options["targets"].assign(vector_id=lambda t: t.grna_id)
    table.loc[[0, 1], "vector_id"] = "v0"
    data = gene_screen_data(**(options | {"targets": table}))
    assert data.targets.guides[0] == "v0" and len(data.targets.guides) == len(table) - 1
    np.testing.assert_array_equal(
        data.guides[:, [0]].toarray()[:, 0], options["guides"].toarray()[:, :2].sum(axis=1)
    )
    table.loc[[0, 2], "vector_id"] = "v1"
    with pytest.raises(
        InputError, match=r"of vector 'v1' have different targets \('T0' and 'T1'\)"
    ):
        gene_screen_data(**(options | {"targets": table}))


def test_a_vector_reaches_over_its_guides():
    options, _ = random_screen()
    table = options["targets"].assign(vector_id=lambda t: t.grna_id, chr="chr1", start=50, end=90)
    table.loc[[0, 1], "vector_id"] = "v0"
    table.loc[0, ["start", "end"]] = [700, 720]
    data = gene_screen_data(**(options | {"targets": table}))
    assert data.targets.start[:2].tolist() == [50.0, 50.0]
    assert data.targets.end[:2].tolist() == [720.0, 90.0]
    table["end"] = table["end"].astype("Int64")
    table.loc[1, "end"] = pd.NA
    data = gene_screen_data(**(options | {"targets": table}))
    assert np.isnan(data.targets.end).tolist() == [True] + [False] * (len(table) - 2)
    table.loc[1, "chr"] = "chr2"
    with pytest.raises(InputError, match=r"vector 'v0' .*chromosomes \('chr1' and 'chr2'\)"):
        gene_screen_data(**(options | {"targets": table}))


def test_rows_of_covariates_are_those_of_the_cells():
    options, _ = random_screen()
    cells = [f"c{i}" for i in range(options["responses"].shape[0])]
    covariates = options["covariates"].set_axis(cells)
    same = gene_screen_data(**(options | {"covariates": covariates, "cell_names": cells}))
    np.testing.assert_array_equal(same.covariates["batch"], covariates["batch"].astype(str))
    numbered = options | {"cell_names": cells}  # rows that have no names
    np.testing.assert_array_equal(
        gene_screen_data(**numbered).covariates["batch"], same.covariates["batch"]
    )
    with pytest.raises(LabelError, match=r"genes and of covariates .* another order .*'c299'"):
        gene_screen_data(**(numbered | {"covariates": covariates[::-1]}))


def test_a_vector_counts_as_one_guide():
    """As if its guides had never been told apart: covariates, assignment, default formula."""
    options, _ = random_screen(n_cells=400)
    table, guides = options["targets"], options["guides"].toarray()
    random = np.random.default_rng(1)
    first = random.binomial(guides.astype(int), 0.5)
    split = np.concatenate([first, guides - first], axis=1)
    names = [*table.grna_id, *(f"{name}_second" for name in table.grna_id)]
    both = pd.DataFrame(
        {
            "grna_id": names,
            "grna_target": np.tile(table.grna_target, 2),
            "vector_id": np.tile(table.grna_id, 2),
        }
    )
    whole = gene_screen_data(**options)
    of_two = {"guides": split, "guide_names": names, "targets": both}
    data = gene_screen_data(**(options | of_two))
    for name, values in whole.covariates.items():
        np.testing.assert_array_equal(data.covariates[name], values, err_msg=name)
    found, expected = assign_guides(data), assign_guides(whole)
    assert (found.cells != expected.cells).nnz == 0 and found.by_threshold == expected.by_threshold


def test_guides_that_are_not_in_the_table_count_for_covariates_alone():
    options, _ = random_screen()
    data = gene_screen_data(**(options | {"targets": options["targets"].iloc[2:]}))
    assert data.guides.shape[1] == options["guides"].shape[1] - 2
    np.testing.assert_array_equal(
        data.covariates["grna_n_umis"], np.asarray(options["guides"].sum(axis=1))[:, 0]
    )
    assert data.target_names == ("T1", "T2", "T3")


def table(**columns):
    options, _ = random_screen()
    return options["targets"].assign(**columns)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"moi": "middling"}, OptionError, "moi is 'middling'"),
        ({"targets": pd.DataFrame({"grna_id": ["a"]})}, LabelError, "no column 'grna_target'"),
        ({"targets": [1, 2]}, InputTypeError, "a table was expected"),
        (
            {"targets": table().assign(grna_target=None)},
            InputError,
            "'grna_target' is missing in row 1",
        ),
        (
            {"targets": table().assign(grna_target=[""] + ["T0"] * 13)},
            InputError,
            "'grna_target' is missing in row 1",
        ),
        (
            {"targets": table().assign(grna_target=pd.array([pd.NA] + ["T0"] * 13, "string"))},
            InputError,
            "'grna_target' is missing in row 1",
        ),
        (
            {"targets": table().assign(vector_id=["v", *[np.nan] * 13])},
            InputError,
            "'vector_id' is missing in row 2",
        ),
        (
            {"targets": table().assign(vector_id=[f"v&{i}" for i in range(14)])},
            LabelError,
            "a vector is called 'v&0'; names of vectors may not",
        ),
        (
            {"targets": table().assign(chr="chr1", start=["5"] * 13 + ["1,000"], end=9)},
            InputError,
            "'start' is '1,000' in row 14 .* a position in bases",
        ),
        ({"targets": pd.concat([table(), table().iloc[:1]])}, LabelError, "occurs twice"),
        (
            {"targets": {"grna_id": ["T0&T1"], "grna_target": ["T0"]}},
            LabelError,
            "may not contain '&'",
        ),
        (
            {"targets": {"grna_id": ["non-targeting"], "grna_target": ["non-targeting"]}},
            LabelError,
            "which is a target",
        ),
        (
            {"targets": {"grna_id": ["nobody"], "grna_target": ["T0"]}},
            LabelError,
            "have no counts .first: 'nobody'",
        ),
        ({"guides": np.ones((3, 14))}, ShapeError, "of 300 cells and counts of guides of 3"),
        (
            {"responses": np.ones((0, 12)), "guides": np.ones((0, 14))},
            InputError,
            "of 0 cells and 12 genes, so that there is nothing to test",
        ),
        ({"response_names": ["a"]}, ShapeError, "1 name of genes and 12 columns"),
        ({"response_names": ["a"] * 12}, LabelError, "occurs twice"),
        ({"responses": np.full((300, 12), 0.5)}, InputError, "in 3,600 places .first: 0.5"),
        ({"responses": -np.ones((300, 12))}, InputError, "not normalised ones"),
        ({"responses": np.full((300, 12), "a")}, InputTypeError, "matrix of numbers"),
        (
            {
                "cell_names": [f"c{i}" for i in range(300)],
                "guide_cell_names": [f"c{i}" for i in range(299, -1, -1)],
            },
            LabelError,
            "in another order",
        ),
        ({"cell_names": ["c"]}, ShapeError, "1 name of cells"),
        (
            {"covariates": {"response_n_umis": np.ones(300)}},
            LabelError,
            "which is made of the counts",
        ),
        (
            {"covariates": {"x": np.where(np.arange(300) == 7, np.nan, 1.0)}},
            MissingCovariateError,
            "cell 8",
        ),
        ({"covariates": {"x": np.full(300, np.inf)}}, InputError, "is infinite"),
        ({"covariates": {"x": np.ones(4)}}, ShapeError, "4 of 300 cells"),
        ({"covariates": {"1": np.ones(300)}}, LabelError, "called '1'.* rename it"),
        (
            {"covariates": {"x": pd.Categorical([None] + [1] * 299)}},
            MissingCovariateError,
            "'x' is missing in 1 cell",
        ),
        (
            {"covariates": {"x": pd.array([True] * 299 + [pd.NA], dtype="boolean")}},
            MissingCovariateError,
            "'x' is missing in 1 cell .first: cell 300",
        ),
        (
            {"covariates": pd.DataFrame(np.ones((300, 2)), columns=["x", "x"])},
            LabelError,
            "the covariate 'x' occurs twice",
        ),
        (
            {"covariates": pd.DataFrame({"x": pd.Categorical(["a"] * 300, ["a", "b"])})},
            InputError,
            "no cell has the level 'b'",
        ),
    ],
)
def test_refused(changes, error, message):
    with pytest.raises(error, match=message):
        made(**changes)


def test_default_formula():
    many = {"few": np.arange(300) % 14.0, "many": np.arange(300.0)}
    data = made(covariates=many)
    assert default_formula(data) == (
        "log(response_n_nonzero) + log(response_n_umis) + log(grna_n_nonzero + 1) + "
        "log(grna_n_umis + 1) + few"
    )
    low = made(moi="low")
    assert default_formula(low) == "log(response_n_nonzero) + log(response_n_umis) + batch"
    names, matrix = design_columns(low, default_formula(low))
    assert names[0] == "(Intercept)" and names[-1] == "batch_1"
    np.testing.assert_array_equal(matrix[:, -1], low.covariates["batch"] == "1")
    assert design_columns(low, "~ 1")[1].shape == (300, 1)
    logs = design_columns(low, "log1p(response_n_umis)")[1][:, 1]
    np.testing.assert_allclose(logs, np.log1p(low.covariates["response_n_umis"]))


@pytest.mark.parametrize("n_levels", [4, 20])
@pytest.mark.parametrize("kind", [str, int, float, bool])
def test_a_category_is_one_whatever_its_levels_are(kind, n_levels):
    codes = np.arange(300) % n_levels
    levels = pd.Index([kind(level) for level in range(2 if kind is bool else n_levels)])
    batch = pd.Categorical.from_codes(codes % len(levels), levels)
    for covariates in ({"batch": batch}, pd.DataFrame({"batch": batch})):
        data = made(moi="low", covariates=covariates)
        formula = default_formula(data)
        assert formula.endswith(" + batch")
        names, matrix = design_columns(data, formula)
        assert names[3:] == tuple(f"batch_{level}" for level in levels[1:])
        indicators = codes[:, None] % len(levels) == np.arange(1, len(levels))
        np.testing.assert_array_equal(matrix[:, 3:], indicators)
    amounts = made(moi="low", covariates={"batch": codes})
    assert "batch" not in amounts.levels


def test_default_formula_leaves_out_counts_of_guides_and_no_covariate_called_alike():
    kit = np.where(np.arange(300) < 100, "new", "old")
    data = made(moi="low", covariates={"grna_kit": kit, "score": np.arange(300.0)})
    assert default_formula(data) == "log(response_n_nonzero) + log(response_n_umis) + grna_kit"
    assert left_out_by_default(data) == ("score",)


@pytest.mark.parametrize(
    "given", [np.asarray, csr_matrix, pd.DataFrame, np.ndarray.tolist], ids=lambda f: f.__name__
)
def test_truth_values_are_guides_that_cells_have(given):
    has = made().guides.toarray() > 5
    data = made(guides=given(has))
    assert data.is_assigned
    np.testing.assert_array_equal(data.guides.toarray(), has)


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("offset(log(response_n_umis))", OptionError, "an offset"),
        ("batch * x", OptionError, "a term 'batch . x'"),
        ("nobody", LabelError, "no covariate"),
        ("log(batch)", OptionError, "is a category"),
        ("log(grna_n_umis)", InputError, "allows zeros"),
    ],
)
def test_formulas_that_are_refused(formula, error, message):
    with pytest.raises(error, match=message):
        design_columns(made(), formula)


def test_basis_of_a_design():
    x = np.column_stack([np.ones(50), np.arange(50.0) + 1e4, np.arange(50.0) ** 2])
    design = GeneDesign.of(["1", "a", "b"], x)
    np.testing.assert_array_equal(design.rows[0], 1.0)
    np.testing.assert_allclose(design.rows @ design.rows.T / 50, np.eye(3), atol=1e-9)
    beta = np.array([1.0, -2.0, 0.5])
    coefficients = np.linalg.lstsq(design.rows.T, x @ beta, rcond=None)[0]
    np.testing.assert_allclose(design.rows.T @ coefficients, x @ beta, rtol=1e-9)
    with pytest.raises(InputError, match="'c' is determined by those before it"):
        GeneDesign.of(["1", "a", "c"], np.column_stack([x[:, :2], x[:, 1] - 3]))


def test_cells_of_modalities_are_found_by_their_names(caplog):
    anndata = pytest.importorskip("anndata")
    mudata = pytest.importorskip("mudata")
    options, _ = random_screen()
    cells = np.array([f"c{i}" for i in range(300)])
    genes = anndata.AnnData(
        options["responses"],
        obs=options["covariates"].set_axis(cells),
        var=pd.DataFrame(index=options["response_names"]),
    )
    order = np.random.default_rng(1).permutation(300)
    guides = anndata.AnnData(
        csr_matrix(options["guides"])[order],
        obs=pd.DataFrame(index=cells[order]),
        var=options["targets"].set_index("grna_id"),
    )

    def both(genes, guides):
        with mudata.set_options(pull_on_update=False):
            made = mudata.MuData({"guide": guides, "rna": genes})
        made.obs["phase"] = [f"phase {name[-1]}" for name in made.obs_names]
        return made

    def read(mdata, **more):
        return gene_screen_from_anndata(mdata, "high", **({"covariates": ["batch"]} | more))

    expected = made()
    found = read(both(genes, guides))
    assert (found.guides != expected.guides).nnz == 0
    assert (found.responses != expected.responses).nnz == 0
    assert found.cell_names.tolist() == cells.tolist()
    np.testing.assert_array_equal(found.covariates["batch"], expected.covariates["batch"])
    phase = read(both(genes, guides), covariates=["phase"]).covariates["phase"]
    assert phase.tolist() == [f"phase {name[-1]}" for name in cells]
    with caplog.at_level("INFO", "plait.crt"):
        few = read(both(genes[:200].copy(), guides))
    assert "no counts of genes: 100 cells of the modality of guides" in caplog.text
    assert (few.guides != expected.guides[:200]).nnz == 0
    with pytest.raises(LabelError, match=r"3 of 300 cells with .* not in the modality of guides"):
        read(both(genes, guides[3:].copy()))
    twice = pd.Index(["c0", "c0", *cells[2:]])
    with pytest.raises(LabelError, match="the cell of the modality of guides 'c0' occurs twice"):
        gene_data._rows_of_guides(genes.obs_names, twice)


def test_anndata_and_mudata(tmp_path):
    anndata = pytest.importorskip("anndata")
    mudata = pytest.importorskip("mudata")
    options, _ = random_screen()
    adata = anndata.AnnData(
        options["responses"],
        obs=options["covariates"].set_axis([f"c{i}" for i in range(300)]),
        var=pd.DataFrame(index=options["response_names"]),
        obsm={"grna_counts": options["guides"]},
        uns={"grna_ids": np.array(options["guide_names"]), "grna_target_table": options["targets"]},
    )
    data = gene_screen_from_anndata(adata, "high", covariates=["batch"])
    expected = made()
    assert (data.responses != expected.responses).nnz == 0
    assert (data.guides != expected.guides).nnz == 0
    assert data.levels == {"batch": ("0", "1")}
    guides = anndata.AnnData(
        csr_matrix(options["guides"]),
        obs=pd.DataFrame(index=adata.obs_names),
        var=options["targets"].set_index("grna_id"),
    )
    with mudata.set_options(pull_on_update=False):
        both = mudata.MuData({"rna": adata, "guide": guides})
        same = gene_screen_from_anndata(both, "high", covariates=["batch"])
        both.write_h5mu(tmp_path / "screen.h5mu")
    assert (same.guides != data.guides).nnz == 0
    np.testing.assert_array_equal(same.targets.targets, data.targets.targets)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    for name in ("screen.h5ad", "screen.h5mu"):
        read = read_gene_screen(tmp_path / name, "high", covariates=["batch"])
        assert (read.responses != data.responses).nnz == 0
        assert (read.guides != data.guides).nnz == 0
        np.testing.assert_array_equal(read.covariates["batch"], data.covariates["batch"])
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(FileFormatError, match="cannot be read"):
            read_gene_screen(tmp_path / name, "high")
        (tmp_path / name).unlink()
        with pytest.raises(FileFormatError, match="there is no file"):
            read_gene_screen(tmp_path / name, "high")
    with pytest.raises(LabelError, match="obs has no column 'lane' for a covariate; there"):
        gene_screen_from_anndata(adata, "high", covariates=["lane"])
    with pytest.raises(LabelError, match=r"near it: 'batch'.*logarithms are taken in the formula"):
        gene_screen_from_anndata(adata, "high", covariates=["log(batch)"])
    with pytest.raises(LabelError, match="no layer 'raw'"):
        gene_screen_from_anndata(adata, "high", layer="raw")
    del adata.uns["grna_ids"]
    with pytest.raises(LabelError, match="no 'grna_ids' or 'guide_names' for names of guides"):
        gene_screen_from_anndata(adata, "high")


def test_default_formula_of_assigned_guides_counts_them_once():
    data = made(guides=made().guides.toarray() > 5)
    assert data.is_assigned
    assert default_formula(data) == (
        "log(response_n_nonzero) + log(response_n_umis) + log(grna_n_nonzero + 1) + batch"
    )


def test_determined_columns_are_left_out_or_refused(caplog):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 50))
    x = np.column_stack([np.ones(50), a, 2 * a - 1, b, a + b])
    names = ["1", "a", "b", "c", "d"]
    with caplog.at_level("INFO", "plait.crt"):
        design = GeneDesign.of(names, x, leave_out_determined=True)
    assert design.names == ("1", "a", "c")
    assert "determined by the rest: b, d" in caplog.text
    np.testing.assert_array_equal(design.rows, GeneDesign.of(["1", "a", "c"], x[:, [0, 1, 3]]).rows)
    with pytest.raises(InputError, match="'b' is determined by those before it"):
        GeneDesign.of(names, x)


def test_controls_are_found_whatever_letters_they_are_written_in(caplog):
    targets = {"a": "Non-Targeting", "b": "T0", "c": "ntc"}
    with caplog.at_level("INFO", "plait.crt"):
        made = target_table(targets, ["a", "b", "c"])
    assert made["grna_target"].tolist() == ["non-targeting", "T0", "non-targeting"]
    assert "those of 'Non-Targeting' and 'ntc' are taken for it" in caplog.text
    exact = target_table(targets | {"c": "non-targeting"}, ["a", "b", "c"])
    assert exact["grna_target"].tolist() == ["Non-Targeting", "T0", "non-targeting"]


def test_guides_without_a_target_are_named(caplog):
    options, _ = random_screen()
    with caplog.at_level("WARNING", "plait.crt"):
        gene_screen_data(**options)
    assert "have no target" not in caplog.text
    left_out = options["targets"].grna_id.iloc[0]
    with caplog.at_level("WARNING", "plait.crt"):
        gene_screen_data(**(options | {"targets": options["targets"].iloc[1:]}))
    assert f"have no target and count for the covariates alone: '{left_out}'" in caplog.text
