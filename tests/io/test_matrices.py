import csv
import gzip
import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.errors import FileFormatError, InputError, LabelError, ShapeError
from plait.io import read_covariances, read_effect_tables, read_matrix, read_square
from tests.reference_files import real_data


def write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


# ---------------------------------------------------------------- how text is understood


@pytest.mark.parametrize(
    ("text", "values", "ids", "names"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]], None, None),
        ("1,2\n3,4", [[1, 2], [3, 4]], None, None),
        ("1,2,3\n", [[1, 2, 3]], None, None),
        ("1\n2\n", [[1], [2]], None, None),
        ("5", [[5]], None, None),
        ("x\n1\n2\n", [[1], [2]], None, ("x",)),
        ("a,b\n1,2\n", [[1, 2]], None, ("a", "b")),
        ("id,a,b\nr1,1,2\nr2,3,4\n", [[1, 2], [3, 4]], ["r1", "r2"], ("a", "b")),
        (",a,b\nr1,1,2\n", [[1, 2]], ["r1"], ("a", "b")),
        (",a,b\n0,1,2\n1,3,4\n", [[1, 2], [3, 4]], ["0", "1"], ("a", "b")),
        (",0,1\n0,1,2\n1,3,4\n", [[1, 2], [3, 4]], ["0", "1"], ("0", "1")),
        (",a,2011\nr1,1,2\n", [[1, 2]], ["r1"], ("a", "2011")),
        (",2010,2011\nr1,1,2\n", [[1, 2]], ["r1"], ("2010", "2011")),
        ("id,2010,2011\nr1,1,2\n", [[1, 2]], ["r1"], ("2010", "2011")),
        ("my_id,a,2011\nr1,1,2\n", [[1, 2]], ["r1"], ("a", "2011")),
        ("r1,1,2\nr2,3,4\n", [[1, 2], [3, 4]], ["r1", "r2"], None),
        ("r1,1,2\n", [[1, 2]], ["r1"], None),
        ("r1,NA,2\nNA,3,4\n", [[np.nan, 2], [3, 4]], ["r1", "NA"], None),
        ("a,b\nr1,1,2\nr2,3,4\n", [[1, 2], [3, 4]], ["r1", "r2"], ("a", "b")),
        ("gene,snp,a\ng1,s1,1\ng1,s2,2\n", [[1], [2]], ["g1:s1", "g1:s2"], ("a",)),
        ("id,a\nx1,1\n7,2\nx3,3\n", [[1], [2], [3]], ["x1", "7", "x3"], ("a",)),
        ("number,a\n1,2\n2,3\n", [[1, 2], [2, 3]], None, ("number", "a")),
        (
            "a,b,c,d,e,f,g\nNA,,NaN,nan,.,null, NA \n1,2,3,4,5,6,7\n",
            [[np.nan] * 7, [1, 2, 3, 4, 5, 6, 7]],
            None,
            tuple("abcdefg"),
        ),
        (",2\n3,4\n", [[np.nan, 2], [3, 4]], None, None),
        ("id,a,b\r\nr1,1,2\r\nr2,3,4\r\n\r\n", [[1, 2], [3, 4]], ["r1", "r2"], ("a", "b")),
        ("id,a\r\nr1,1\r\n,\r\n,\r\n", [[1]], ["r1"], ("a",)),
        ("id,a\rr1,1\rr2,2\r", [[1], [2]], ["r1", "r2"], ("a",)),
        ('"id","a, b"\n"r ""1""","1"\n', [[1]], ['r "1"'], ("a, b",)),
        ("a,b\n,\n", [[np.nan, np.nan]], None, ("a", "b")),
        ('a\n""\n2\n', [[np.nan], [2]], None, ("a",)),
        ("id,a\nr1,inf\nr2,-1e-300\n", [[np.inf], [-1e-300]], ["r1", "r2"], ("a",)),
        (" id , a \n r1 , 1 \n", [[1]], ["r1"], ("a",)),
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "T.TAB"])
def test_text(tmp_path, text, values, ids, names, bom, name):
    if ".csv" not in name:
        text = text.replace(",", "\t")
        names = names and tuple(name.replace(",", "\t") for name in names)
    matrix = read_matrix(write(tmp_path, bom + text.encode(), name))
    np.testing.assert_array_equal(matrix.values, values)
    assert (None if matrix.row_names is None else list(matrix.row_names)) == ids
    assert matrix.column_names == names
    assert not matrix.values.flags.writeable
    assert matrix.values.flags.c_contiguous
    assert matrix.shape == np.shape(values)


def test_conditions_pick_columns_in_the_order_asked(tmp_path):
    text = "chrom,pos,rsid,HDL,note,LDL\nchr1,10,rs1,1,x,2\nchr1,20,rs2,3,y,4\n"
    path = write(tmp_path, text)
    matrix = read_matrix(path, ["LDL", "HDL"])
    np.testing.assert_array_equal(matrix.values, [[2, 1], [4, 3]])
    assert matrix.column_names == ("LDL", "HDL")
    assert list(matrix.row_names) == ["chr1:rs1", "chr1:rs2"]
    with pytest.raises(LabelError, match=r"'TC' is not in the header. The columns are: chrom, pos"):
        read_matrix(path, ["TC"])
    with pytest.raises(LabelError, match="named twice"):
        read_matrix(path, ["HDL", "HDL"])
    with pytest.raises(LabelError, match="empty"):
        read_matrix(path, [])
    with pytest.raises(LabelError, match="no header"):
        read_matrix(write(tmp_path, "1,2\n3,4\n"), ["a"])


names_ = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8
).filter(lambda name: name.strip() == name and not name.startswith("\ufeff"))
numbers = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_what_the_csv_module_writes_is_read_back_exactly(tmp_path_factory, data):
    columns = data.draw(st.integers(1, 4))
    rows = data.draw(st.integers(1, 5))
    values = np.array(
        data.draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    ).reshape(rows, columns)
    names = data.draw(st.lists(names_, min_size=columns, max_size=columns, unique=True))
    ids = [
        "r" + name
        for name in data.draw(st.lists(names_, min_size=rows, max_size=rows, unique=True))
    ]
    buffer = io.StringIO()
    ends = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(buffer, lineterminator=ends, quoting=quoting)
    writer.writerow(["id", *names])
    for row_id, row in zip(ids, values, strict=True):
        writer.writerow([row_id, *map(repr, row.tolist())])
    folder = tmp_path_factory.mktemp("csv")
    matrix = read_matrix(write(folder, buffer.getvalue(), "t.csv.gz"))
    np.testing.assert_array_equal(matrix.values, values)
    assert matrix.column_names == tuple(names)
    assert list(matrix.row_names) == ids


def test_a_large_text_is_not_held_in_memory(tmp_path):
    rows, columns = 40_000, 25
    line = ",".join(["0.12345678901234567"] * columns) + "\n"
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        for _ in range(rows):
            file.write(line)
    assert path.stat().st_size > 19e6
    tracemalloc.start()
    try:
        matrix = read_matrix(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert matrix.shape == (rows, columns)
    assert peak < 1.5 * matrix.values.nbytes


# ---------------------------------------------------------------- errors in text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", FileFormatError, "is empty"),
        ("\n\n", FileFormatError, "is empty"),
        ("\ufeff", FileFormatError, "is empty"),
        ("a,b\n", FileFormatError, "header and no rows"),
        (",a\n,\n", FileFormatError, "no rows of data"),
        ("a,b\n1,2\n3\n5,6\n", FileFormatError, "row 3 has 1 columns; the rows above have 2"),
        ("1,2\n3,4,5\n", FileFormatError, "row 2 has 3 columns"),
        ("a,b\n1,2,3\n", FileFormatError, "row 2 has 3 columns; the header has 2"),
        ("1,2\n\n3,4\n", FileFormatError, "row 2 is empty but more rows follow"),
        ("id,a\nr1,1\n,\nr2,2\n", FileFormatError, "row 3 is empty but more rows follow"),
        ("id,a\nr1,1\nr2,2\nr1,3\n", LabelError, r"id 'r1' occurs more than once \(rows 2 and 4\)"),
        ("id,a,b,a\nr1,1,2,3\n", LabelError, r"'a' occurs more than once.*columns 2 and 4"),
        ("id,a,\nr1,1,2\n", FileFormatError, "column 3 has no name"),
        ("id,a,b\nr1,1,2\nr2,3,x\n", FileFormatError, r"row 3, column 'b' \(3\): found 'x' where"),
        ("1,2\n3,x\n", FileFormatError, "row 2, column 2: found 'x'"),
        ("1,2\n3,1_000\n", FileFormatError, "row 2, column 2: found '1_000'"),
        ('id,a\nr1,1\nr2,"0,5"\n', FileFormatError, "Write decimals with a point"),
        ("id;a\nr1;1\nr2;2\n", FileFormatError, "look separated by ';'"),
        ("1;2\n3;4\n", FileFormatError, "look separated by ';'"),
        ("id\ta\nr1\t1\n", FileFormatError, "look separated by tabs"),
        ("a,b\nx,y\n", FileFormatError, "no column of numbers"),
        ("0.1,n/a,0.3\n0.2,0.1,0.3\n", FileFormatError, "row 1 mixes numbers and text .column 2"),
        (",n/a,0.3\n0.2,0.1,0.3\n", FileFormatError, "row 1 mixes numbers and text .column 2"),
        ("r1,n/a,0.3\nr2,0.1,0.3\n", FileFormatError, "row 1 mixes numbers and text .column 2"),
        ("id,a,b\nr1,n/a,1\nr2,3,4\n", FileFormatError, "row 3, column 2: found the number '3'"),
        ("a,b\nn/a,1\n2,3\n4,5\n", FileFormatError, "row 2, column 1: found 'n/a' where the rows"),
        ('id,a\n"r1,1\nr2,2\n', FileFormatError, "cannot be read"),
        (b"id,a\nr1,1\nr\xe9,2\n", FileFormatError, r"not UTF-8 .byte 0xe9"),
        ("id,a\nr1,1\n".encode("utf-16"), FileFormatError, "not UTF-8"),
    ],
)
def test_text_errors_name_the_place(tmp_path, text, error, message):
    path = write(tmp_path, text)
    with pytest.raises(error, match=message) as caught:
        read_matrix(path)
    assert str(path) in str(caught.value)


def test_r_tables_without_a_name_for_the_row_names(tmp_path):
    matrix = read_matrix(write(tmp_path, "a\tb\nr1\t1\t2\n", "t.tsv"))
    assert list(matrix.row_names) == ["r1"]
    assert matrix.column_names == ("a", "b")


@pytest.mark.parametrize("cut", [5, 200, -5])
def test_truncated_gzip(tmp_path, cut):
    text = "".join(f"r{i},{np.random.default_rng(i).random()}\n" for i in range(200))
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:cut])
    with pytest.raises(FileFormatError, match=r"truncated or damaged|is damaged or truncated"):
        read_matrix(path)
    damaged = bytearray(gzip.compress(text.encode()))
    damaged[500:520] = b"\0" * 20
    path.write_bytes(bytes(damaged))
    with pytest.raises(FileFormatError):
        read_matrix(path)


def test_files_that_are_not_there_or_not_files(tmp_path, monkeypatch):
    with pytest.raises(FileFormatError, match=r"absent.csv does not exist"):
        read_matrix(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FileFormatError, match="is a folder"):
        read_matrix(tmp_path / "folder.csv")
    with pytest.raises(FileFormatError, match=r"expected one of \.npy, \.npz, \.csv"):
        read_matrix(write(tmp_path, "1", "table.xlsx"))
    path = write(tmp_path, "1,2\n")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(FileFormatError, match="cannot be read: Permission denied"):
        read_matrix(path)


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, np.uint8, ">f8"])
def test_array_files(tmp_path, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    np.savez_compressed(tmp_path / "a.npz", anything=values)
    for name in ("a.npy", "a.npz"):
        matrix = read_matrix(tmp_path / name)
        np.testing.assert_array_equal(matrix.values, values)
        assert matrix.values.dtype == np.float64
        assert matrix.values.flags.c_contiguous
        assert not matrix.values.flags.writeable
        assert matrix.row_names is matrix.column_names is None
    np.save(tmp_path / "row.npy", values[0])
    assert read_matrix(tmp_path / "row.npy").shape == (1, 3)


def test_npz_must_hold_one_array(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.eye(2), two=np.eye(2))
    with pytest.raises(FileFormatError, match=r"holds 2 arrays \(one, two\)"):
        read_matrix(tmp_path / "a.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(FileFormatError, match="holds 0 arrays"):
        read_matrix(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((2, 2, 2)), ShapeError, r"3 dimensions \(2, 2, 2\)"),
        (np.float64(1), ShapeError, "0 dimensions"),
        (np.zeros((0, 3)), InputError, "empty"),
        (np.array([["a"]]), FileFormatError, "values of type <U1"),
        (np.ones((2, 2), bool), FileFormatError, "values of type bool"),
        (np.ones((2, 2), complex), FileFormatError, "values of type complex128"),
        (np.array([[1, "a"]], dtype=object), FileFormatError, "Python objects"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_that_are_no_matrices(tmp_path, array, error, message, suffix):
    path = tmp_path / f"a{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)
    with pytest.raises(error, match=message) as caught:
        read_matrix(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
def test_truncated_and_foreign_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    values = np.random.default_rng(1).random((50, 4))
    if suffix == ".parquet":
        pl.DataFrame(values).write_parquet(path)
    else:
        (np.save if suffix == ".npy" else np.savez_compressed)(path, values)
    data = path.read_bytes()
    for part in (data[:-20], data[: len(data) // 2], data[:20], b"", b"nonsense" * 20):
        path.write_bytes(part)
        with pytest.raises(FileFormatError) as caught:
            read_matrix(path)
        assert str(path) in str(caught.value)
    path.write_bytes(pickle.dumps(values))
    with pytest.raises(FileFormatError):
        read_matrix(path)


def test_npz_with_a_damaged_member(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x10\x00garbage")
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        read_matrix(path)
    np.savez_compressed(path, a=np.random.default_rng(0).random((40, 40)))
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(bytes(data))
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        read_matrix(path)


def test_conditions_need_names(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    with pytest.raises(LabelError, match="no column names"):
        read_matrix(tmp_path / "a.npy", ["x"])


# ---------------------------------------------------------------- parquet


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame(
        {"gene": ["g", "g"], "snp": ["1", "2"], "x": [1.5, None], "y": [1, 2], "z": [0, 0]}
    )
    frame.write_parquet(path)
    matrix = read_matrix(path)
    np.testing.assert_array_equal(matrix.values, [[1.5, 1, 0], [np.nan, 2, 0]])
    assert list(matrix.row_names) == ["g:1", "g:2"]
    assert matrix.column_names == ("x", "y", "z")
    np.testing.assert_array_equal(read_matrix(path, ["z", "x"]).values, [[0, 1.5], [0, np.nan]])
    frame.select("x", "y", "snp").write_parquet(path)  # pandas puts the index at the end
    assert list(read_matrix(path).row_names) == ["1", "2"]
    frame.select("x", "y").write_parquet(path)
    assert read_matrix(path).row_names is None


def test_parquet_errors(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"id": ["a", "a"], "x": [1.0, 2.0], "t": ["u", "v"], "y": [1, 2]})
    frame.write_parquet(path)
    with pytest.raises(FileFormatError, match="column 't' holds String"):
        read_matrix(path)
    with pytest.raises(LabelError, match="'nope' is not in the header"):
        read_matrix(path, ["nope"])
    with pytest.raises(LabelError, match=r"id 'a' occurs more than once \(rows 1 and 2\)"):
        read_matrix(path, ["x"])
    frame.select("id", "t").write_parquet(path)
    with pytest.raises(FileFormatError, match="no column of numbers"):
        read_matrix(path)
    frame.select("x")[:0].write_parquet(path)
    with pytest.raises(FileFormatError, match="no rows"):
        read_matrix(path)


# ---------------------------------------------------------------- pairs of tables


BHAT = "id,af,a,b\nr1,0.1,1,2\nr2,0.2,3,NA\n"
SHAT = "id,af,a,b\nr1,0.1,0.5,0.6\nr2,0.2,0.7,NA\n"


def pair(tmp_path, bhat, shat, conditions=None):
    return read_effect_tables(
        write(tmp_path, bhat, "bhat.csv"), write(tmp_path, shat, "shat.csv"), conditions
    )


def test_a_pair_of_tables(tmp_path):
    bhat, shat = pair(tmp_path, BHAT, SHAT, ["a", "b"])
    np.testing.assert_array_equal(bhat.values, [[1, 2], [3, np.nan]])
    np.testing.assert_array_equal(shat.values, [[0.5, 0.6], [0.7, np.nan]])
    alone, nothing = read_effect_tables(tmp_path / "bhat.csv")
    assert nothing is None
    assert alone.column_names == ("af", "a", "b")


@pytest.mark.parametrize(
    ("bhat", "shat", "error", "message"),
    [
        (BHAT, SHAT, FileFormatError, r"column 'af'.*--conditions a,b"),
        (BHAT, BHAT, FileFormatError, "are they the same table"),
        ("id,a\nx,1\ny,2\n", "id,a\ny,1\nx,2\n", LabelError, "ids of.*bhat.csv.*in another order"),
        ("id,a\nx,1\ny,2\n", "id,a\nx,3\nz,4\n", LabelError, "first at 2: 'y' and 'z'"),
        ("id,a\nx,1\ny,2\n", "id,a\nx,3\n", LabelError, "1 only in the first .'y'.*2 and 1 of"),
        ("id,a,b\nx,1,2\n", "id,b,a\nx,3,4\n", LabelError, "condition names.*in another order"),
        ("id,a,b\nx,1,2\n", "id,a,c\nx,3,4\n", LabelError, "condition names.*'b' and 'c'"),
        ("1,2\n3,4\n", "1,2\n", ShapeError, r"dimensions of.*\(2, 2\).*\(1, 2\)"),
    ],
)
def test_tables_that_do_not_belong_together(tmp_path, bhat, shat, error, message):
    with pytest.raises(error, match=message):
        pair(tmp_path, bhat, shat)


def test_a_condition_missing_everywhere_is_no_shared_column(tmp_path):
    bhat, _ = pair(tmp_path, "id,a,b\nr,1,NA\ns,2,NA\n", "id,a,b\nr,3,NA\ns,4,NA\n")
    assert bhat.column_names == ("a", "b")


def test_a_table_of_a_spreadsheet_user(tmp_path):
    bhat = "\ufeffmarker,E1,E2\r\nm1,0.5,NA\r\nm2,-1,0.25\r\n\r\n"
    shat = "\ufeffmarker,E1,E2\r\nm1,0.1,NA\r\nm2,0.2,0.3\r\n\r\n"
    matrix, errors = pair(tmp_path, bhat, shat)
    np.testing.assert_array_equal(matrix.values, [[0.5, np.nan], [-1, 0.25]])
    assert list(errors.row_names) == ["m1", "m2"]


def test_the_wheat_tables():
    bhat_path = real_data("mash", "wheat_marker_env_bhat.csv.gz")
    shat_path = real_data("mash", "wheat_marker_env_shat.csv.gz")
    with pytest.raises(FileFormatError, match=r"'allele_freq'.*--conditions E1,E2,E4,E5"):
        read_effect_tables(bhat_path, shat_path)
    bhat, shat = read_effect_tables(bhat_path, shat_path, ["E1", "E2", "E4", "E5"])
    assert bhat.shape == shat.shape == (1279, 4)
    frame = pd.read_csv(bhat_path)
    np.testing.assert_array_equal(bhat.values, frame[["E1", "E2", "E4", "E5"]].to_numpy())
    assert list(bhat.row_names) == list(frame["marker"])
    V = read_square(real_data("mash", "wheat_phenotype_correlation.csv"), bhat.column_names)
    assert V.shape == (4, 4)
    assert np.all(np.diagonal(V.values) == 1)


def test_the_other_real_tables():
    lipids = real_data("mash", "lipids_z_max_per_ld_block.csv.gz")
    with pytest.raises(FileFormatError, match=r"column 'rsid'.*--conditions"):
        read_matrix(lipids)
    matrix = read_matrix(lipids, ["HDL", "LDL", "TG", "TC"])
    assert matrix.shape == (1702, 4)
    assert matrix.row_names[0] == "chr1:rs13303019"
    path = real_data("mash", "gtex_two_tissue_cis_eqtl.csv.gz")
    columns = ["slope_t1", "slope_t2"]
    gtex = read_matrix(path, columns)
    assert gtex.row_names[0] == "ENSG00000186092.4:chr1_1000018_G_A_b38"
    np.testing.assert_array_equal(gtex.values, pd.read_csv(path)[columns].to_numpy())
    assert np.isnan(gtex.values).any()


# ---------------------------------------------------------------- covariances


def test_covariances(tmp_path):
    stack = np.stack([np.eye(2), np.ones((2, 2))])
    np.save(tmp_path / "u.npy", stack)
    np.savez(tmp_path / "stack.npz", u_stack=stack, u_names=np.array(["a", "b"]))
    np.savez(tmp_path / "unnamed.npz", u_stack=stack)
    np.savez(tmp_path / "keys.npz", one=stack[0], two=stack[1])
    for name, keys in (
        ("u.npy", ["U_1", "U_2"]),
        ("unnamed.npz", ["U_1", "U_2"]),
        ("stack.npz", ["a", "b"]),
        ("keys.npz", ["one", "two"]),
    ):
        matrices = read_covariances(tmp_path / name, 2)
        assert list(matrices) == keys
        for matrix, expected in zip(matrices.values(), stack, strict=True):
            np.testing.assert_array_equal(matrix, expected)
    with pytest.raises(ShapeError, match=r"keys.npz: 'one' has shape \(2, 2\); expected \(3, 3\)"):
        read_covariances(tmp_path / "keys.npz", 3)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"u_stack": np.eye(2)}, ShapeError, r"expected \(K, R, R\)"),
        ({"u_stack": np.zeros((2, 3, 2))}, ShapeError, r"expected \(K, R, R\)"),
        ({"u_stack": np.zeros((2, 2, 2)), "u_names": ["a"]}, ShapeError, "1 u_names"),
        ({"u_stack": np.zeros((2, 2, 2)), "u_names": ["a", "a"]}, LabelError, "'a'"),
        (
            {"a": np.eye(2), "b": np.eye(3)},
            ShapeError,
            r"'b' has shape \(3, 3\); expected \(2, 2\)",
        ),
        ({"a": np.zeros((2, 3))}, ShapeError, r"'a' has shape \(2, 3\)"),
        ({"a": np.array(["x"])}, FileFormatError, "'a' holds values of type"),
        ({}, FileFormatError, "no array"),
    ],
)
def test_covariances_that_are_none(tmp_path, arrays, error, message):
    path = tmp_path / "u.npz"
    np.savez(path, **arrays)
    with pytest.raises(error, match=message):
        read_covariances(path)


def test_covariances_from_other_files(tmp_path):
    with pytest.raises(FileFormatError, match=r"expected one of \.npy, \.npz"):
        read_covariances(write(tmp_path, "1,0\n0,1\n"))
    with pytest.raises(FileFormatError, match="does not exist"):
        read_covariances(tmp_path / "absent.npz")


def test_square(tmp_path):
    V = np.array([[1, 0.5], [0.5, 1]])
    np.save(tmp_path / "v.npy", V)
    np.save(tmp_path / "many.npy", np.stack([V] * 3))
    np.testing.assert_array_equal(read_square(tmp_path / "v.npy", ["a", "b"]).values, V)
    assert read_square(tmp_path / "many.npy", ["a", "b"]).shape == (3, 2, 2)
    for text in ("1,0.5\n0.5,1\n", "a,b\n1,0.5\n0.5,1\n", ",a,b\na,1,0.5\nb,0.5,1\n"):
        np.testing.assert_array_equal(read_square(write(tmp_path, text), ["a", "b"]).values, V)
    with pytest.raises(ShapeError, match=r"expected \(3, 3\)"):
        read_square(tmp_path / "v.npy", ["a", "b", "c"])
    with pytest.raises(ShapeError, match=r"shape \(1, 2\)"):
        read_square(write(tmp_path, "1,2\n"))
    with pytest.raises(LabelError, match=r"conditions and the column names differ.*another order"):
        read_square(write(tmp_path, "a,b\n1,0.5\n0.5,1\n"), ["b", "a"])
    with pytest.raises(LabelError, match="column names and the row names differ"):
        read_square(write(tmp_path, ",a,b\nb,1,0.5\na,0.5,1\n"))
