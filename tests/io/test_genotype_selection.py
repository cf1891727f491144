"""Samples and variants by lists of names."""

import logging

import numpy as np
import pytest

from plait.errors import FileFormatError, LabelError
from plait.io import read_names, select_genotypes
from tests.gwas.conftest import InMemory


@pytest.fixture
def source():
    calls = np.random.default_rng(0).integers(-1, 3, (9, 6)).astype(np.int8)
    return InMemory(calls)


def test_lists_keep_and_leave_out(source):
    ids = [f"rs{j}" for j in range(8)] + ["."]
    source = InMemory(source.calls, ids=ids)
    keys = source.variants.keys.to_list()
    samples = source.samples.tolist()
    part = select_genotypes(
        source,
        keep_samples=[samples[5], samples[1], samples[2]],
        exclude_samples=[samples[2]],
        keep_variants=[*ids[2:6], keys[8]],
        exclude_variants=[keys[3]],
    )
    assert part.samples.tolist() == [samples[1], samples[5]]
    rows = [2, 4, 5, 8]
    np.testing.assert_array_equal(part.read(dtype=np.int8), source.calls[np.ix_(rows, [1, 5])])
    assert select_genotypes(source, keep_samples=samples) is source
    assert select_genotypes(source) is source


def test_names_that_are_not_there(source, caplog):
    samples = source.samples.tolist()
    with caplog.at_level(logging.WARNING, "plait.io"):
        part = select_genotypes(source, keep_samples=[samples[0], "b", "a"])
    assert part.n_samples == 1
    assert "2 of 3 samples to keep are not in the genotypes (first: 'b')" in caplog.text
    with pytest.raises(
        LabelError, match=r"none of the 1 samples to leave out .* 'x'; the first of"
    ):
        select_genotypes(source, exclude_samples=["x"])
    with pytest.raises(LabelError, match="none of the 1 variants to keep"):
        select_genotypes(source, keep_variants=["."])
    named = InMemory(source.calls, ids=[f"rs{j}" for j in range(9)])
    with pytest.raises(LabelError, match="first of the genotypes is 'rs0' or '1:1:A:G'"):
        select_genotypes(named, keep_variants=["nothing"])
    with pytest.raises(LabelError, match="none of the 9 variants is left"):
        select_genotypes(source, exclude_variants=source.variants.keys.to_list())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb\n\n c \n", ["a", "b", "c"]),
        ("IID\na\n", ["a"]),
        ("#IID\na\n", ["a"]),
        ("#FID\tIID\n0\ta\n0\tb\n", ["a", "b"]),
        ("FID IID\nf a\n", ["a"]),
    ],
)
def test_reading_lists(tmp_path, text, names):
    (tmp_path / "list.txt").write_text(text)
    assert read_names(tmp_path / "list.txt") == names


def test_lists_that_are_none(tmp_path):
    path = tmp_path / "list.txt"
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_names(path)
    path.write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_names(path)
    path.write_text("IID\n")
    with pytest.raises(FileFormatError, match="no name"):
        read_names(path)
    path.write_text("a\nb c d\n")
    with pytest.raises(FileFormatError, match="line 2 has 3 columns"):
        read_names(path)
