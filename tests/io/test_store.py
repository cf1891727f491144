import errno
import json
from contextlib import nullcontext

import numpy as np
import pytest
import xarray as xr
import zarr

from plait.data import Effects
from plait.errors import FileFormatError, OutputError
from plait.io import (
    check_store_writable,
    read_effects,
    write_effects,
)
from plait.io.store import (
    Contents,
    distinct_dims,
    extend_store,
    local_path,
    read_provenance,
    read_store,
    require_apart,
    write_store,
)
from plait.provenance import Provenance

CONTENTS = Contents(
    {
        "a": (("effects", "contexts"), np.array([[1.0, np.inf], [np.nan, -0.0]])),
        "b": (("effects",), np.array([True, False])),
        "c": (("effects",), np.array([1, 2])),
        "effects": (("effects",), np.array(["rs1", "é☃"], dtype=object)),
        "scalar": ((), np.array(2.5)),
    }
)
PART = Contents({"c": CONTENTS.arrays["c"]})


@pytest.fixture(params=["path", "str", "file", "memory"])
def url(request, tmp_path):
    path = tmp_path / "a.zarr"
    yield {
        "path": path,
        "str": str(path),
        "file": f"file://{path}",
        "memory": f"memory://{tmp_path.name}/a.zarr",
    }[request.param]
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").store.clear()


def test_round_trip_and_overwriting(url):
    provenance = Provenance("test", options={"alpha": 1})
    write_store(CONTENTS, url, kind="thing", provenance=provenance)
    back = read_store(url, kind="thing")
    assert list(back.arrays) == list(CONTENTS.arrays)
    for name, (dims, values) in CONTENTS.arrays.items():
        assert back.arrays[name][0] == dims
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)
    assert back.labelled == ["effects"]
    assert back.attributes["schema"] == "plait/thing"
    assert back.attributes["schema_version"] == "1.0"
    assert read_provenance(back) == provenance
    assert read_provenance(CONTENTS) is None
    with pytest.raises(OutputError, match="--overwrite"):
        write_store(CONTENTS, url, kind="thing")
    with pytest.raises(OutputError, match="--overwrite"):
        check_store_writable(url)
    check_store_writable(url, overwrite=True)
    write_store(PART, url, kind="other", overwrite=True)
    assert list(read_store(url, kind="other").arrays) == ["c"]


def test_groups_and_what_is_left_out(tmp_path):
    url = tmp_path / "a.zarr"
    write_store(CONTENTS, url, kind="thing", groups={"inner/most": PART})
    inner = read_store(url, group="inner/most")
    assert inner["c"].tolist() == [1, 2]
    assert "a" not in read_store(url, leave_out=["a"])
    with pytest.raises(FileFormatError, match="damaged"):
        read_store(url, group="absent")


def test_large_arrays_are_cut_in_whole_grains(tmp_path, monkeypatch):
    monkeypatch.setattr("plait.io.store._CHUNK_BYTES", 3000 * 8)
    values = np.random.default_rng(0).random((5000, 2))
    contents = Contents({"a": (("x", "y"), values), "empty": (("z",), np.zeros(0))})
    write_store(contents, tmp_path / "a.zarr", kind="thing")
    assert zarr.open_group(tmp_path / "a.zarr", mode="r")["a"].chunks == (1024, 2)
    np.testing.assert_array_equal(read_store(tmp_path / "a.zarr")["a"], values)


def change_attributes(path, **changes):
    text = json.loads((path / "zarr.json").read_text())
    text["attributes"].update(changes)
    (path / "zarr.json").write_text(json.dumps(text))


def test_stores_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.zarr"
    with pytest.raises(FileFormatError, match="does not exist"):
        read_store(path)
    with pytest.raises(FileFormatError, match="is not a store or is damaged"):
        read_store("memory://nowhere/at/all.zarr")
    write_store(CONTENTS, path, kind="thing")
    with pytest.raises(FileFormatError, match="is a store of thing; one of effects is expected"):
        read_effects(path)
    change_attributes(path, schema_version="1.7")
    read_store(path)
    change_attributes(path, schema_version="2.0")
    with pytest.raises(FileFormatError, match=r"layout version 2.0.*install a later version"):
        read_store(path)
    change_attributes(path, schema_version="1.0", complete=False)
    with pytest.raises(FileFormatError, match="not complete"):
        read_store(path)
    change_attributes(path, schema="someone/else")
    with pytest.raises(FileFormatError, match="not a store of plait"):
        read_store(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(FileFormatError, match="damaged"):
        read_store(path)
    (tmp_path / "file.zarr").write_text("text")
    with pytest.raises(FileFormatError, match="damaged"):
        read_store(tmp_path / "file.zarr")


def test_a_damaged_chunk(tmp_path):
    path = tmp_path / "a.zarr"
    write_store(CONTENTS, path, kind="thing")
    (chunk,) = (name for name in (path / "a" / "c").rglob("*") if name.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(FileFormatError, match="damaged"):
        read_store(path)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    write_store(CONTENTS, path, kind="thing")
    put = zarr.storage.LocalStore.set

    async def full(self, key, value, *rest, **more):
        if "/c/" in key:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await put(self, key, value, *rest, **more)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", full)
    with pytest.raises(OutputError, match="no space left"):
        write_store(CONTENTS, path, kind="other", overwrite=True)
    monkeypatch.undo()
    assert [name.name for name in tmp_path.iterdir()] == ["a.zarr"]
    read_store(path, kind="thing")


def test_a_remote_store_is_removed_when_writing_fails(monkeypatch):
    import fsspec

    url = "memory://remote/a.zarr"

    def fail(*_):
        fsspec.filesystem("memory").pipe("/remote/a.zarr/zarr.json", b"{}")
        raise ValueError("no")

    monkeypatch.setattr("plait.io.store._write_groups", fail)
    with pytest.raises(ValueError, match="no"):
        write_store(CONTENTS, url, kind="thing")
    assert not fsspec.filesystem("memory").exists("/remote/a.zarr")
    fsspec.filesystem("memory").pipe("/remote/a.zarr/text", b"")
    with pytest.raises(OutputError, match="not a store"):
        write_store(CONTENTS, url, kind="thing", overwrite=True)
    fsspec.filesystem("memory").store.clear()


def test_a_torn_remote_store_is_replaced(monkeypatch):
    import fsspec

    url, memory = "memory://remote/a.zarr", fsspec.filesystem("memory")
    memory.pipe("/remote/a.zarr/zarr.json", b"{}")
    with pytest.raises(OutputError, match="--overwrite"):  # it may be anybody's
        write_effects(Effects(BHAT, SHAT), url)
    memory.pipe("/remote/a.zarr.partial", b"{}")
    write_effects(Effects(BHAT, SHAT), url)
    assert not memory.exists("/remote/a.zarr.partial")
    memory.pipe("/remote/a.zarr.partial", b"{}")
    with pytest.raises(OutputError, match="--overwrite"):  # killed when it was complete
        write_effects(Effects(BHAT, SHAT), url)
    memory.store.clear()


def test_killed_between_the_renames(tmp_path):
    path = tmp_path / "a.zarr"
    write_store(CONTENTS, path, kind="thing")
    path.rename(tmp_path / ".a.zarr.replaced")
    with pytest.raises(OutputError, match="exists"):
        write_store(CONTENTS, path, kind="other")
    read_store(path, kind="thing")
    path.rename(tmp_path / ".a.zarr.replaced")
    write_store(CONTENTS, path, kind="other", overwrite=True)
    assert [name.name for name in tmp_path.iterdir()] == ["a.zarr"]


def test_a_dataset_is_written_beside_again(tmp_path):
    """What an interrupted writer left, whatever its state, is replaced."""
    groups = {"inner/most": PART, "inner": PART}
    for _ in range(2):
        extend_store(CONTENTS, tmp_path / "a.zarr", kind="thing", groups=groups)
        (tmp_path / "a.zarr/inner/zarr.json").write_text("{")
        (tmp_path / "a.zarr/a/zarr.json").write_text("")
    extend_store(CONTENTS, tmp_path / "a.zarr", kind="thing", groups=groups)
    assert read_store(tmp_path / "a.zarr", group="inner/most")["c"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("url", "source", "is_apart"),
    [
        ("a.zarr", "a.zarr", False),
        ("./b/../a.zarr/", "file://{here}/a.zarr", False),
        ("a.zarr/b", "a.zarr", False),
        (".", "a.zarr", False),
        ("s.zarr", "a.zarr", False),  # a symbolic link
        ("a.zarr.b", "a.zarr", True),
        ("memory://x/a.zarr/", "memory://x/a.zarr", False),
        ("memory://x", "memory://x/a.zarr", False),
        ("memory://x/a.zarr2", "memory://x/a.zarr", True),
        ("memory://x/a.zarr", "a.zarr", True),
    ],
)
def test_outputs_apart_from_what_they_are_made_from(tmp_path, monkeypatch, url, source, is_apart):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "s.zarr").symlink_to("a.zarr")
    with nullcontext() if is_apart else pytest.raises(OutputError, match="is or overlaps"):
        require_apart(url, source.format(here=tmp_path))


BHAT = np.array([[1.0, -2.0], [0.5, 0.0], [3.0, np.nan]])
SHAT = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, np.nan]])
V = np.array([[1.0, 0.3], [0.3, 1.0]])


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("correlation", [None, V, np.stack([V, np.eye(2), V])])
def test_effects_round_trip(tmp_path, labels, correlation):
    rows = ["rs1", "a much longer name", "é"] if labels else None
    columns = ["liver", "lung"] if labels else None
    provenance = Provenance("gwas", seed=3) if labels else None
    effects = Effects(BHAT, SHAT, correlation, rows, columns, provenance)
    write_effects(effects, tmp_path / "e.zarr")
    back = read_effects(tmp_path / "e.zarr")
    np.testing.assert_array_equal(back.bhat, effects.bhat)
    np.testing.assert_array_equal(back.shat, effects.shat)
    assert back.missing_mask.sum() == 1
    if correlation is None:
        assert back.V is None
    else:
        np.testing.assert_array_equal(back.V, correlation)
    assert back.contexts == effects.contexts
    assert back.provenance == provenance
    assert (back.effects is None) == (not labels)
    assert not labels or list(back.effects) == rows
    with pytest.raises(OutputError, match="--overwrite"):
        write_effects(effects, tmp_path / "e.zarr")


def test_effects_without_a_table(tmp_path):
    write_store(CONTENTS, tmp_path / "e.zarr", kind="effects")
    with pytest.raises(FileFormatError, match="lacks"):
        read_effects(tmp_path / "e.zarr")


def test_small_helpers(tmp_path):
    assert distinct_dims(("a", "b", "b", "b")) == ("a", "b", "b_2", "b_3")
    assert local_path("s3://bucket/a.zarr") is None
    assert str(local_path("file:///a/b")) == "/a/b"
    assert local_path(tmp_path) == tmp_path


def test_xarray_reads_them(tmp_path):
    write_store(CONTENTS, tmp_path / "a.zarr", kind="thing")
    found = xr.open_zarr(tmp_path / "a.zarr", consolidated=False).load()
    xr.testing.assert_equal(found, CONTENTS.to_xarray())
    assert found["effects"].values.tolist() == ["rs1", "é☃"]
