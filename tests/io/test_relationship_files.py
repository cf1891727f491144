"""Relationship matrices in GCTA's files."""

import numpy as np
import pytest

from plait.errors import (
    FileFormatError,
    InputError,
    LabelError,
    MissingSidecarError,
    OutputError,
    ShapeError,
    TruncatedFileError,
)
from plait.io.relationship_files import (
    check_relationships_writable,
    read_relationships,
    write_relationships,
)


@pytest.fixture
def matrix():
    random = np.random.default_rng(0)
    values = random.standard_normal((1300, 20))
    return (values @ values.T / 20).astype(np.float32).astype(float)


def names(n):
    return [f"s{i}" for i in range(n)]


def test_round_trip(matrix, tmp_path):
    write_relationships(tmp_path / "a", matrix, names(1300), 500)
    found = read_relationships(tmp_path / "a.grm.bin")
    np.testing.assert_array_equal(found.matrix, matrix)
    assert (found.n_variants == 500).all()
    assert found.samples.tolist() == found.families.tolist() == names(1300)


def test_bytes_are_those_of_gcta(tmp_path):
    K = np.array([[1.0, 0.5, 0.25], [0.5, 2.0, -0.5], [0.25, -0.5, 3.0]])
    counts = np.array([[9, 8, 7], [8, 9, 6], [7, 6, 9]])
    write_relationships(tmp_path / "k", K, ["a", "b", "c"], counts, ["f1", "f1", "f2"])
    lower = np.frombuffer((tmp_path / "k.grm.bin").read_bytes(), "<f4")
    np.testing.assert_array_equal(lower, [1, 0.5, 2, 0.25, -0.5, 3])
    number = np.frombuffer((tmp_path / "k.grm.N.bin").read_bytes(), "<f4")
    np.testing.assert_array_equal(number, [9, 8, 9, 7, 6, 9])
    assert (tmp_path / "k.grm.id").read_text() == "f1\ta\nf1\tb\nf2\tc\n"
    (tmp_path / "k.grm.N.bin").unlink()
    assert read_relationships(tmp_path / "k").n_variants is None


def test_names_that_repeat(tmp_path):
    own = ["f1:a", "f2:a", "f2:b"]
    write_relationships(tmp_path / "k", np.eye(3), own, 5, ["f1", "f2", "f2"])
    assert (tmp_path / "k.grm.id").read_text() == "f1\ta\nf2\ta\nf2\tb\n"
    assert read_relationships(tmp_path / "k").samples.tolist() == own


def test_a_header_of_plink_2(tmp_path):
    write_relationships(tmp_path / "k", np.eye(2), ["a", "b"], 5)
    place = tmp_path / "k.grm.id"
    place.write_text("#FID\tIID\n" + place.read_text())
    assert read_relationships(tmp_path / "k").samples.tolist() == ["a", "b"]


def test_what_is_not_written(tmp_path):
    with pytest.raises(ShapeError, match="2 samples"):
        write_relationships(tmp_path / "k", np.eye(3), ["a", "b"], 5)
    with pytest.raises(ShapeError, match="n_variants"):
        write_relationships(tmp_path / "k", np.eye(2), ["a", "b"], np.ones(2))
    with pytest.raises(ShapeError, match="families"):
        write_relationships(tmp_path / "k", np.eye(2), ["a", "b"], 5, ["f"])
    with pytest.raises(InputError, match="symmetric"):
        write_relationships(tmp_path / "k", np.array([[1, 2], [0, 1.0]]), ["a", "b"], 5)
    with pytest.raises(InputError, match="finite"):
        write_relationships(tmp_path / "k", np.full((2, 2), np.nan), ["a", "b"], 5)
    with pytest.raises(LabelError, match="'a b' has blanks"):
        write_relationships(tmp_path / "k", np.eye(2), ["a b", "b"], 5)
    assert not list(tmp_path.iterdir())
    write_relationships(tmp_path / "k", np.eye(2), ["a", "b"], 5)
    with pytest.raises(OutputError, match="exists"):
        write_relationships(tmp_path / "k", np.eye(2), ["a", "b"], 5)
    with pytest.raises(OutputError, match="exists"):
        check_relationships_writable(tmp_path / "k")
    write_relationships(tmp_path / "k", 2 * np.eye(2), ["a", "b"], 5, overwrite=True)
    assert read_relationships(tmp_path / "k").matrix[0, 0] == 2


def test_damaged_files(tmp_path):
    with pytest.raises(MissingSidecarError, match=r"k\.grm\.bin is not there"):
        read_relationships(tmp_path / "k")
    write_relationships(tmp_path / "k", np.eye(4), names(4), 5)
    whole = (tmp_path / "k.grm.bin").read_bytes()
    (tmp_path / "k.grm.bin").write_bytes(whole[:-1])
    with pytest.raises(TruncatedFileError, match=r"39 bytes.*has 40"):
        read_relationships(tmp_path / "k")
    (tmp_path / "k.grm.bin").write_bytes(whole)
    (tmp_path / "k.grm.id").write_text("a\nb\n")
    with pytest.raises(FileFormatError, match="row 1 has 1 columns"):
        read_relationships(tmp_path / "k")
