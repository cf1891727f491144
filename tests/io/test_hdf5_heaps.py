"""Files whose heaps of text were lost to zeros: HDF5 alone would read them for ever."""

import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from plait.errors import FileFormatError
from plait.io.anndata import read_counts, read_screen
from plait.io.hdf5_heaps import check_text_heaps

SIGNATURE = b"GCOL\x01\x00\x00\x00"


def damaged(path, begin, size):
    """Replace some bytes of a file by zeros."""
    content = bytearray(path.read_bytes())
    content[begin : begin + size] = bytes(size)
    path.write_bytes(content)
    return path


@pytest.fixture
def text_file(tmp_path):
    """Text between large arrays, contiguous and in compressed chunks."""
    path = tmp_path / "text.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(20_000.0)
        file.create_dataset("text", data=[f"cell number {i}" for i in range(800)])
        square = np.arange(90_000).reshape(300, 300)
        file.create_dataset("chunks", data=square, chunks=(50, 300), compression="gzip")
        file.create_dataset("not written", shape=(1000, 1000), chunks=(10, 10), dtype="f8")
        file.create_dataset("nothing", data=h5py.Empty("f"))
        file.attrs["words"] = "of the file"
    return path


def test_whole_files_pass(text_file):
    check_text_heaps(text_file)


@pytest.mark.parametrize("cell", [5, 100, 790])
def test_heaps_with_zeros_are_refused(text_file, cell):
    place = text_file.read_bytes().index(f"cell number {cell}".encode())
    damaged(text_file, place - 40, 100)
    with pytest.raises(FileFormatError, match="was lost to zeros at byte"):
        check_text_heaps(text_file)


def test_hdf5_alone_does_not_return(text_file):
    """The reason for the check: a library that reads on where it should fail."""
    heap = text_file.read_bytes().index(SIGNATURE)
    damaged(text_file, heap + 2000, 100)
    code = "import h5py, sys; print('OPENED', flush=True); h5py.File(sys.argv[1])['text'][:]"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(text_file)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout.readline() == "OPENED\n"
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(timeout=3)
    finally:
        reader.kill()
        reader.communicate()


def test_large_arrays_are_not_searched(tmp_path):
    """What looks like a damaged heap among numbers is numbers."""
    fake = np.zeros(100_000, dtype=np.uint8)
    heap = SIGNATURE + (4096).to_bytes(8, "little")
    fake[50_000 : 50_000 + len(heap)] = np.frombuffer(heap, dtype=np.uint8)
    path = tmp_path / "fake.h5"
    for chunks in (None, (25_000,)):
        with h5py.File(path, "w") as file:
            file.create_dataset("numbers", data=fake, chunks=chunks)
        assert heap in path.read_bytes()
        check_text_heaps(path)


def test_screens(tmp_path):
    path = tmp_path / "screen.h5ad"
    names = [f"a long name of cell {i}" for i in range(500)]
    screen = anndata.AnnData(np.ones((500, 3), dtype=np.float32), obs=pd.DataFrame(index=names))
    screen.write_h5ad(path)
    assert read_counts(path).n_obs == 500
    whole = path.read_bytes()
    place = whole.index(names[300].encode())
    damaged(path, place - 50, 500)
    for read in (read_screen, read_counts):
        with pytest.raises(FileFormatError, match=r"screen\.h5ad is damaged"):
            read(path)
    path.write_bytes(whole[: len(whole) // 2])
    for read in (read_screen, read_counts):
        with pytest.raises(FileFormatError, match=r"cannot be read as \.h5ad"):
            read(path)
