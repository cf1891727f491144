import copy
import json
import logging
import pickle
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array, csc_array, csc_matrix, csr_array, csr_matrix

from plait.crt import (
    build_gene_to_cols,
    get_program_names,
    perturbation_effects,
    prepare_crt_inputs,
    read_cnmf_usage,
    read_guide_table,
    read_screen,
    to_csc_matrix,
    union_obs_idx_from_cols,
)
from plait.crt.guides import indicator_matrix
from plait.errors import (
    DataWarning,
    InputError,
    InputTypeError,
    LabelError,
    OptionError,
    ShapeError,
)
from tests.crt.screens import small_screen
from tests.reference_files import real_data

ARRAYS = ("C", "A", "CTY", "basis", "residuals", "usage")


def as_anndata(screen, frames=False):
    cells = [f"cell{i}" for i in range(len(screen.obsm["cnmf_usage"]))]
    obsm = dict(screen.obsm)
    if frames:
        obsm["covar"] = pd.DataFrame(obsm["covar"], index=cells, columns=["x", "y"])
        obsm["cnmf_usage"] = pd.DataFrame(obsm["cnmf_usage"], index=cells, columns=list("pqrs"))
        obsm["guide_assignment"] = csr_matrix(obsm["guide_assignment"])
    return anndata.AnnData(obs=pd.DataFrame(index=cells), obsm=obsm, uns=screen.uns)


def same_numbers(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.G.toarray(), other.G.toarray())
    assert one.units == other.units and one.eps == other.eps


def test_parts_of_the_inputs():
    screen = small_screen()
    inputs = prepare_crt_inputs(screen)
    assert repr(inputs) == (
        "CRTInputs(60 cells, 4 programs, 8 guides of 4 targets, 3 columns of covariates)"
    )
    np.testing.assert_allclose(inputs.A, np.linalg.inv(inputs.C.T @ inputs.C), atol=1e-15)
    np.testing.assert_allclose(inputs.CTY, inputs.C.T @ inputs.Y, atol=1e-12)
    hat = inputs.C @ inputs.A @ inputs.C.T
    np.testing.assert_allclose(inputs.basis @ inputs.basis.T, hat, atol=1e-13)
    np.testing.assert_allclose(inputs.residuals, inputs.Y - hat @ inputs.Y, atol=1e-12)
    assert inputs.U.dtype == np.float32 and inputs.usage_eps_quantile == 1e-4
    assert inputs.program_names == ("program_0", "program_1", "program_2", "program_3")
    assert inputs.covar_cols is None and inputs.covar_df_raw is None and inputs.batch_raw is None
    for name in ARRAYS:
        assert not getattr(inputs, name).flags.writeable


def test_treated_cells_carry_any_guide_of_the_target():
    screen = small_screen()
    inputs = prepare_crt_inputs(screen)
    present = screen.obsm["guide_assignment"].astype(bool)
    assert inputs.units == ("A", "B", "C", "NTC")
    for j, gene in enumerate(inputs.units):
        expected = np.flatnonzero(present[:, 2 * j : 2 * j + 2].any(axis=1))
        np.testing.assert_array_equal(inputs.treated(gene), expected)
    matrix = inputs.treated_matrix(["C", "A"])
    assert matrix.dtype == np.int8 and matrix.shape == (60, 2)
    np.testing.assert_array_equal(matrix[:, [0]].toarray()[:, 0], present[:, 4:6].any(axis=1))
    np.testing.assert_array_equal(matrix[:, [1]].toarray()[:, 0], present[:, :2].any(axis=1))
    assert inputs.treated_matrix([]).shape == (60, 0)
    with pytest.raises(
        KeyError, match="no guide targets 'D'; the screen has 4 targets \\('A', 'B'"
    ):
        inputs.treated("D")


def test_kinds_of_containers_and_matrices(tmp_path):
    screen = small_screen()
    expected = prepare_crt_inputs(screen)
    for make in (csr_array, csc_array, csr_matrix, csc_matrix, coo_array, np.asfortranarray):
        other = small_screen()
        other.obsm["guide_assignment"] = make(screen.obsm["guide_assignment"])
        other.obsm["cnmf_usage"] = np.asfortranarray(screen.obsm["cnmf_usage"])
        same_numbers(prepare_crt_inputs(other), expected)
    frame = small_screen()
    frame.obsm["guide_assignment"] = pd.DataFrame(
        screen.obsm["guide_assignment"].astype(bool), columns=frame.uns.pop("guide_names")
    )
    same_numbers(prepare_crt_inputs(frame), expected)
    scattered = SimpleNamespace(
        layers={"cnmf_usage": screen.obsm["cnmf_usage"]},
        obs=None,
        uns=MappingProxyType(
            {
                "covar": screen.obsm["covar"],
                "guide_assignment": screen.obsm["guide_assignment"],
                "guide2gene": json.dumps(screen.uns["guide2gene"]),
                "guide_names": np.array(screen.uns["guide_names"]),
            }
        ),
    )
    same_numbers(prepare_crt_inputs(scattered), expected)
    adata = as_anndata(screen, frames=True)
    same_numbers(prepare_crt_inputs(adata), expected)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    same_numbers(prepare_crt_inputs(anndata.read_h5ad(tmp_path / "screen.h5ad")), expected)
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    inputs = prepare_crt_inputs(backed)
    backed.file.close()
    same_numbers(inputs, expected)
    assert inputs.program_names == tuple("pqrs") and inputs.covar_cols == ("x", "y")
    assert inputs.cell_names[59] == "cell59"


def test_the_anndata_is_not_changed_and_not_shared():
    adata = as_anndata(small_screen(), frames=True)
    adata.obsm["guide_assignment"].data[:3] = 0
    before = copy.deepcopy(adata)
    inputs = prepare_crt_inputs(adata)
    for key in adata.obsm:
        one, other = adata.obsm[key], before.obsm[key]
        if hasattr(one, "nnz"):
            assert one.nnz == other.nnz
            one, other = one.toarray(), other.toarray()
        np.testing.assert_array_equal(one, other)
    assert list(adata.uns) == list(before.uns) and list(adata.obs) == []
    usage, frame = inputs.U.copy(), inputs.covar_df_raw.copy()
    adata.obsm["cnmf_usage"].iloc[0, 0] = 7.0
    adata.obsm["covar"].iloc[0, 0] = 7.0
    np.testing.assert_array_equal(inputs.U, usage)
    assert inputs.covar_df_raw.equals(frame)


def test_inputs_can_be_sent_to_other_processes():
    inputs = prepare_crt_inputs(small_screen())
    again = pickle.loads(pickle.dumps(inputs))
    same_numbers(again, inputs)
    np.testing.assert_array_equal(again.treated("B"), inputs.treated("B"))


def test_threads_never_change_the_inputs():
    screen = small_screen(n_cells=3000)
    same_numbers(*(prepare_crt_inputs(screen, threads=threads) for threads in (1, 3)))


def test_a_stored_zero_is_absent():
    screen = small_screen()
    dense = screen.obsm["guide_assignment"]
    rows, columns = np.indices(dense.shape)
    screen.obsm["guide_assignment"] = csc_array(
        (dense.ravel(), (rows.ravel(), columns.ravel())), shape=dense.shape
    )
    inputs = prepare_crt_inputs(screen)
    assert inputs.G.nnz == dense.sum() and screen.obsm["guide_assignment"].nnz == dense.size


def test_guides_without_a_target_stay_and_belong_to_none(caplog):
    screen = small_screen()
    targets = screen.uns["guide2gene"]
    targets |= {"A_g0": None, "A_g1": float("nan"), "B_g2": " ", "elsewhere": "Z"}
    with caplog.at_level(logging.INFO, logger="plait.crt"):
        inputs = prepare_crt_inputs(screen)
    assert inputs.units == ("B", "C", "NTC") and inputs.G.shape == (60, 8)
    assert list(inputs.gene_to_cols["B"]) == [3]
    assert "not in the guide assignment: 1 guide of the mapping" in caplog.text
    assert (
        "3 of 8 guides have no target and are guides of no perturbation: 'A_g0', 'A_g1', 'B_g2'"
    ) in caplog.text


def test_eps_and_batches():
    screen = small_screen()
    largest = screen.obsm["cnmf_usage"].max()
    with pytest.raises(OptionError, match="with this floor all usages are the same"):
        prepare_crt_inputs(screen, eps=largest)
    inputs = prepare_crt_inputs(screen, eps=1e-6)
    assert inputs.eps == 1e-6 and inputs.usage_eps_quantile is None
    with pytest.raises(OptionError, match="floor under usages is positive"):
        prepare_crt_inputs(screen, eps=0.0)
    lanes = np.array(["l0", "l1", "l2"])[np.arange(60) % 3]
    screen.obs = pd.DataFrame({"lane": lanes})
    np.testing.assert_array_equal(prepare_crt_inputs(screen, batch_key="lane").batch_raw, lanes)
    assert prepare_crt_inputs(screen).batch_raw is None  # of the usual name there may be none
    with pytest.raises(LabelError, match="obs 'lnae', which batch_key names; there are 'lane'"):
        prepare_crt_inputs(screen, batch_key="lnae")
    screen.obsm["covar"] = pd.DataFrame({"batch": lanes[::-1], "x": np.linspace(0, 1, 60)})
    inputs = prepare_crt_inputs(screen)
    np.testing.assert_array_equal(inputs.batch_raw, lanes[::-1])
    assert inputs.covar_cols == ("x", "batch_l1", "batch_l2")


def test_a_generated_screen_with_its_own_intercept():
    # programDE: "Singular matrix" (or noise) from its own generator with default options.
    screen = small_screen()
    screen.obsm["covar"] = np.column_stack([np.ones(60), screen.obsm["covar"]])
    with pytest.warns(DataWarning, match="left out .*'covar_0'"):
        inputs = prepare_crt_inputs(screen)
    assert inputs.dropped_covariates == ("covar_0",)
    assert inputs.C.shape == (60, 3)
    kept = prepare_crt_inputs(screen, add_intercept=False, standardize=False)
    assert kept.dropped_covariates == ()
    np.testing.assert_allclose(kept.residuals, inputs.residuals, atol=1e-12)


def test_programs_are_named_by_uns_first():
    screen = small_screen()
    screen.uns = MappingProxyType(screen.uns | {"program_names": ["a", "b", "c", "d"]})
    assert prepare_crt_inputs(screen).program_names == ("a", "b", "c", "d")
    assert get_program_names(SimpleNamespace(), 2) == ("program_0", "program_1")


def replace(**parts):
    def change(screen):
        for key, value in parts.items():
            container = screen.obsm if key in screen.obsm else screen.uns
            container[key] = value(container.get(key)) if callable(value) else value

    return change


def changed(entry, value):
    def change(matrix):
        matrix = np.array(matrix, dtype=float)
        matrix[entry] = value
        return matrix

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.obsm.pop("cnmf_usage"), LabelError, "no 'cnmf_usage' .*searched obsm, uns"),
        (lambda s: s.obsm.pop("covar"), LabelError, "no 'covar'"),
        (lambda s: s.obsm.pop("guide_assignment"), LabelError, "no 'guide_assignment'"),
        (lambda s: s.uns.pop("guide2gene"), LabelError, "no 'guide2gene'"),
        (
            lambda s: s.uns.pop("guide_names"),
            InputError,
            r"guide column names are required: pass a DataFrame or uns\['guide_names'\]",
        ),
        (replace(guide_names=lambda g: g[:-1]), ShapeError, "7 names of guides and 8 columns"),
        (replace(guide_names=lambda g: [*g[:-1], g[0]]), LabelError, "guide 'A_g0' occurs twice"),
        (replace(guide2gene={"x": "X"}), InputError, "no target has a guide: .*'x'.*'A_g0'"),
        (replace(guide2gene={}), InputError, "no target has a guide"),
        (replace(guide2gene="not json"), InputError, "'guide2gene' is text but not JSON"),
        (replace(guide2gene=[1, 2]), InputTypeError, "is a list; expected a mapping"),
        (replace(program_names=["a"]), ShapeError, "1 name of programs and 4 programs"),
        (replace(program_names=list("aabc")), LabelError, "program 'a' occurs twice"),
        (replace(covar=lambda c: c[:-1]), ShapeError, "59 in the covariates, 60 in the usage, 60"),
        (replace(cnmf_usage=lambda u: u[:-2]), ShapeError, "60 .*, 58 in the usage, 60 in the gui"),
        (replace(guide_assignment=lambda g: g[1:]), ShapeError, "59 in the guide assignment"),
        (replace(cnmf_usage=changed((4, 2), np.nan)), InputError, "'program_2' by cell 'cell 4'"),
        (replace(cnmf_usage=changed((4, 2), -0.1)), InputError, "is -0.1; usages are finite"),
        (replace(cnmf_usage=lambda u: u.astype(str)), InputTypeError, "'cnmf_usage' holds <U"),
        (replace(cnmf_usage=lambda u: u[:, 0]), ShapeError, "'cnmf_usage' has 1 dimension"),
        (
            replace(covar=changed((1, 1), np.nan)),
            InputError,
            "missing values: 'covar_1' \\(1 cell\\)",
        ),
        (replace(guide_assignment=changed((2, 3), -1)), InputError, "cell 3 and guide 4 .* is -1"),
        (replace(covar=changed((1, 1), np.inf)), InputError, "infinite values: 'covar_1'"),
        (replace(cnmf_usage=changed((4, 2), np.inf)), InputError, "'program_2' by cell 'cell 4'"),
        (replace(guide_assignment=changed((2, 3), np.nan)), InputError, "is nan; expected 0"),
        (replace(guide_assignment=changed((2, 3), np.inf)), InputError, "is inf; expected 0"),
        (replace(guide_assignment=lambda g: g.astype(str)), InputTypeError, "holds <U"),
        (replace(guide_assignment=lambda g: g[:, 0]), ShapeError, "has 1 dimension;"),
    ],
)
def test_what_is_wrong_is_said(change, error, message):
    screen = small_screen()
    change(screen)
    with pytest.raises(error, match=message):
        prepare_crt_inputs(screen)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_program_that_does_not_vary_is_said_and_has_no_effect(dtype):
    screen = small_screen()
    ratios = np.random.default_rng(1).normal(size=(60, 4))
    # The first is constant, the second a function of a covariate: what is left is rounding.
    ratios[:, 0] = 0.3
    ratios[:, 1] = screen.obsm["covar"][:, 0]
    ratios[:, 2:] += (-ratios.sum(axis=1) / 2.0)[:, None]
    screen.obsm["cnmf_usage"] = np.exp(ratios).astype(dtype)
    with pytest.warns(DataWarning) as said:
        inputs = prepare_crt_inputs(screen, eps=1e-9)
    assert any("do not vary beyond" in str(w.message) for w in said)
    assert any("'program_0', 'program_1'. Their" in str(w.message) for w in said)
    assert not inputs.residuals[:, :2].any()
    assert (inputs.residuals[:, 2:].std(axis=0) > 0.1).all()
    for options in (
        {},
        {"sampler": "stratified", "strata": {"stratify_by_batch": False}},
        {"method": "skew-normal", "resamples": 50},
        {"method": "adaptive"},
    ):
        found = perturbation_effects(inputs, **options)
        assert (found.p[:, :2] == 1.0).all()
        assert (found.beta[:, :2] == 0.0).all()
        assert np.isfinite(found.p).all()
        effects = found.to_effects()
        assert effects.contexts == ("program_2", "program_3")
        assert (effects.shat > 0.0).all()
    screen.obsm["cnmf_usage"] = np.full((60, 4), 0.25)
    with pytest.raises(InputError, match=r"no program varies .*'program_0'.*nothing to test"):
        prepare_crt_inputs(screen)


def test_errors_are_the_built_in_ones_too():
    assert issubclass(LabelError, (KeyError)) and issubclass(LabelError, ValueError)
    assert issubclass(InputTypeError, TypeError) and issubclass(ShapeError, ValueError)


def test_a_frame_of_guides_holds_numbers():
    screen = small_screen()
    frame = pd.DataFrame(screen.obsm["guide_assignment"], columns=screen.uns["guide_names"])
    screen.obsm["guide_assignment"] = frame.astype({"B_g2": str})
    with pytest.raises(InputTypeError, match="guide 'B_g2' of the guide assignment holds object"):
        prepare_crt_inputs(screen)


def test_cells_must_be_in_the_same_order_everywhere():
    screen = small_screen()
    cells = [f"cell{i}" for i in range(60)]
    screen.obsm["covar"] = pd.DataFrame(screen.obsm["covar"], index=cells)
    screen.obsm["cnmf_usage"] = pd.DataFrame(screen.obsm["cnmf_usage"], index=cells[::-1])
    with pytest.raises(LabelError, match="in another order \\(first at 1: 'cell59' and 'cell0'\\)"):
        prepare_crt_inputs(screen)
    screen = small_screen()
    screen.obs_names = cells[:-1]
    with pytest.raises(ShapeError, match="59 names of cells and 60 cells"):
        prepare_crt_inputs(screen)


def test_helpers_on_guides():
    matrix = to_csc_matrix(np.array([[0, 2], [1, 0], [3, 1]]))
    np.testing.assert_array_equal(union_obs_idx_from_cols(matrix, [1, 0]), [0, 1, 2])
    np.testing.assert_array_equal(union_obs_idx_from_cols(matrix, [0]), [1, 2])
    assert union_obs_idx_from_cols(matrix, []).shape == (0,)
    together = indicator_matrix(matrix, [[0, 1], [1]])
    np.testing.assert_array_equal(together.toarray(), [[1, 1], [1, 0], [1, 1]])
    columns = build_gene_to_cols(["g2", "g0", "g1"], {"g0": "B", "g1": "A", "g2": "B"})
    assert list(columns) == ["A", "B"]
    np.testing.assert_array_equal(columns["B"], [0, 1])


def test_sets_of_guides_are_united_in_any_order():
    random = np.random.default_rng(5)
    carried = random.random((40, 9)) < 0.3
    matrix = to_csc_matrix(carried.astype(float))
    for begin, end in pairwise(matrix.indptr):  # rows of a column in any order
        matrix.indices[begin:end] = random.permutation(matrix.indices[begin:end])
    sets = [[], [4], [8, 0, 3], [3, 0], [5, 5], list(range(9)), []]
    found = indicator_matrix(matrix, sets)
    expected = np.column_stack([carried[:, part].any(axis=1) for part in sets])
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.dtype == np.int8 and found.has_canonical_format
    assert indicator_matrix(matrix, []).shape == (40, 0)


def test_a_real_screen_with_exact_zeros():
    # programDE: a floor of 0, so log 0 and NaN everywhere.
    adata = anndata.read_h5ad(real_data("crt", "papalexi.h5ad"), backed="r")
    adata.obsm["covar"] = adata.obs[["bio_rep", "n_umis"]].assign(n_umis=lambda t: np.log(t.n_umis))
    keys = {
        "usage_key": "usage",
        "guide_names_key": "grna_ids",
        "guide2gene_key": "guide2gene_json",
    }
    with pytest.warns(DataWarning, match="of the usages are 0"):
        inputs = prepare_crt_inputs(adata, **keys, batch_key="bio_rep")
    adata.file.close()
    assert inputs.n_cells == 20_729 and len(inputs.units) == 26 + 1
    assert np.isfinite(inputs.Y).all() and inputs.eps > 0
    assert set(inputs.batch_raw) == {"rep_1", "rep_2", "rep_3"}


def test_a_part_of_an_anndata():
    random = np.random.default_rng(3)
    cells = [f"cell{i}" for i in range(60)]
    screen = small_screen()
    adata = as_anndata(screen, frames=True)
    adata.obsm["covar"] = pd.DataFrame(
        {
            "batch": pd.Categorical(random.choice(["a", "b"], 60), categories=["a", "b", "c"]),
            "x": random.normal(size=60),
        },
        index=cells,
    )
    part = adata[:50]
    inputs = prepare_crt_inputs(part)
    assert part.is_view and inputs.covar_cols == ("x", "batch_b")
    assert adata.obsm["covar"]["batch"].cat.categories.tolist() == ["a", "b", "c"]
    same_numbers(inputs, prepare_crt_inputs(part.copy()))


def test_from_the_files_of_other_tools_to_inputs(tmp_path):
    screen = small_screen()
    expected = prepare_crt_inputs(screen)
    adata = as_anndata(screen)
    usage = pd.DataFrame(100.0 * adata.obsm.pop("cnmf_usage"), index=adata.obs_names)
    path = tmp_path / "run.usages.k_4.dt_2_0.consensus.txt"
    usage.iloc[::-1].to_csv(path, sep="\t")
    adata.obsm["cnmf_usage"] = read_cnmf_usage(path, adata.obs_names)
    names = np.array(adata.uns.pop("guide_names"))
    rows, columns = np.nonzero(adata.obsm.pop("guide_assignment"))
    table = pd.DataFrame({"cell": adata.obs_names[rows], "guide": names[columns]})
    table.sample(frac=1.0, random_state=1).to_csv(tmp_path / "guides.csv", index=False)
    adata.obsm["guide_assignment"], adata.uns["guide_names"] = read_guide_table(
        tmp_path / "guides.csv", adata.obs_names
    )
    adata.write_h5ad(tmp_path / "screen.h5ad")
    opened = read_screen(tmp_path / "screen.h5ad")
    inputs = prepare_crt_inputs(opened)
    opened.file.close()
    assert inputs.units == expected.units
    np.testing.assert_array_equal(
        inputs.treated_matrix().toarray(), expected.treated_matrix().toarray()
    )
    np.testing.assert_allclose(inputs.Y, expected.Y, atol=1e-12)
    assert inputs.program_names == ("0", "1", "2", "3")
