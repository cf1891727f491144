import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plait.errors import OutputError
from plait.io import check_writable, replace_file, replace_folder

FULL = OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(target, error, meanwhile=lambda: None):
    with replace_file(target, overwrite=error is not None) as temporary:
        temporary.write_text("half")
        meanwhile()
        if error is not None:
            raise error


def write_folder_and_fail(target):
    with replace_folder(target, overwrite=True) as temporary:
        (temporary / "zarr.json").write_text("half")
        raise FULL


def write_to_full_device(target):
    with replace_file(target) as temporary:
        temporary.symlink_to("/dev/full")
        with temporary.open("wb") as file:
            file.write(b"x" * 100_000)


def test_the_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "result.npz"
    with replace_file(target) as temporary:
        np.savez(temporary, a=np.eye(2))
        assert temporary.parent.parent == tmp_path
        assert temporary.suffix == ".npz"
        assert not target.exists()
    assert names(tmp_path) == ["result.npz"]
    np.testing.assert_array_equal(np.load(target)["a"], np.eye(2))


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_is_lost_or_left_when_the_block_raises(tmp_path, error, existing):
    target = tmp_path / "out.csv.gz"
    if existing:
        target.write_text("old")
    with pytest.raises(type(error)):
        write_and_fail(target, error)
    assert names(tmp_path) == (["out.csv.gz"] if existing else [])
    assert not existing or target.read_text() == "old"


def test_overwriting_must_be_asked_for(tmp_path):
    target = tmp_path / "out.json"
    target.write_text("old")
    with pytest.raises(OutputError, match="exists; to replace it use --overwrite"):
        check_writable(target)
    with pytest.raises(OutputError, match="--overwrite"), replace_file(target):
        pytest.fail("the block must not run")
    with replace_file(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert check_writable(target, overwrite=True) == target


def test_a_newcomer_is_not_overwritten(tmp_path):
    target = tmp_path / "out.json"
    with pytest.raises(OutputError, match="appeared while"):
        write_and_fail(target, None, lambda: target.write_text("theirs"))
    assert target.read_text() == "theirs"
    assert names(tmp_path) == ["out.json"]


def test_a_full_disk_is_said_and_cleaned_up(tmp_path):
    target = tmp_path / "out.bin"
    target.write_text("old")
    with pytest.raises(OutputError, match=r"out.bin was not written: no space left"):
        write_and_fail(target, FULL)
    assert names(tmp_path) == ["out.bin"]
    assert target.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_really_full_device(tmp_path):
    with pytest.raises(OutputError, match="no space left"):
        write_to_full_device(tmp_path / "out")
    assert names(tmp_path) == []
    assert Path("/dev/full").exists()


def test_folders_that_cannot_take_an_output(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"the folder .*absent does not exist; create it"):
        check_writable(tmp_path / "absent" / "out.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        check_writable(tmp_path / "file" / "out.npz")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_writable(tmp_path / "out.npz")


def test_permission_refused_while_writing(tmp_path):
    with (
        pytest.raises(OutputError, match="Permission denied"),
        replace_file(tmp_path / "a") as name,
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(name))
    with pytest.raises(PermissionError), replace_file(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied", "some input")


def test_folders_are_replaced_whole(tmp_path):
    target = tmp_path / "store.zarr"
    for text in ("one", "two"):
        with replace_folder(target, overwrite=True) as temporary:
            (temporary / "zarr.json").write_text(text)
            (temporary / text).mkdir()
        assert (target / "zarr.json").read_text() == text
        assert names(target) == [text, "zarr.json"]
    with pytest.raises(OutputError, match="--overwrite"), replace_folder(target):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match="no space"):
        write_folder_and_fail(target)
    assert (target / "zarr.json").read_text() == "two"
    assert names(tmp_path) == ["store.zarr"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter").write_text("years")
    with (
        pytest.raises(OutputError, match="is a folder and not a store"),
        replace_folder(precious, overwrite=True),
    ):
        pytest.fail("the block must not run")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(OutputError, match="is a file"), replace_folder(tmp_path / "a.txt", True):
        pytest.fail("the block must not run")
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(OutputError, match="is a folder; a file"),
        replace_file(tmp_path / "empty", overwrite=True),
    ):
        pytest.fail("the block must not run")
    with replace_folder(tmp_path / "empty", overwrite=True) as temporary:
        (temporary / "zarr.json").write_text("{}")
    assert (tmp_path / "empty" / "zarr.json").exists()


def test_the_old_store_comes_back_when_the_last_rename_fails(tmp_path, monkeypatch):
    target = tmp_path / "store.zarr"
    target.mkdir()
    (target / "zarr.json").write_text("old")
    rename = Path.rename

    def fail_for_new(self, other):
        if (self / "new").exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OSError, match="Input/output"), replace_folder(target, True) as temporary:
        (temporary / "new").write_text("")
    assert (target / "zarr.json").read_text() == "old"
    assert names(tmp_path) == ["store.zarr"]


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    """But nothing of a writer that lives, and nothing that another target's writer left."""
    script = (
        "import sys, time\n"
        "from plait.io import replace_file, replace_folder\n"
        "with replace_folder(sys.argv[1]) as folder, replace_file(sys.argv[2]) as file:\n"
        "    (folder / 'part').write_text('half')\n"
        "    file.write_text('half')\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
    )
    store, table = tmp_path / "effects.zarr", tmp_path / "table.csv.gz"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, store, table], stdout=subprocess.PIPE, text=True
    )
    writer.stdout.readline()
    left = names(tmp_path)
    assert [re.sub("[0-9a-f]{8}", "*", name) for name in left] == [
        ".effects.*.partial.zarr", ".table.*.partial.csv.gz",
    ]  # fmt: skip
    for place, other in ((store, "effects.csv"), (table, "table.csv")):
        (tmp_path / f".{other.replace('.', '.0123abcd.partial.')}").mkdir()
        (tmp_path / f".{place.name}").mkdir()
    others = sorted(set(names(tmp_path)) - set(left))

    def write():
        with replace_folder(store, overwrite=True) as folder:
            (folder / "zarr.json").write_text("{}")
        with replace_file(table, overwrite=True) as file:
            file.write_text("whole")

    write()
    assert names(tmp_path) == sorted([*left, *others, "effects.zarr", "table.csv.gz"])
    writer.kill()
    writer.communicate()
    write()
    assert names(tmp_path) == sorted([*others, "effects.zarr", "table.csv.gz"])
    assert table.read_text() == "whole"


def test_a_folder_that_cannot_be_locked_is_written_and_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    left = tmp_path / ".effects.0123abcd.partial.zarr"
    left.mkdir()
    with replace_folder(tmp_path / "effects.zarr") as folder:
        (folder / "zarr.json").write_text("{}")
    assert names(tmp_path) == [left.name, "effects.zarr"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real" / "file.txt")
    with replace_file(link) as temporary:
        temporary.write_text("text")
    assert link.is_symlink()
    assert (tmp_path / "real" / "file.txt").read_text() == "text"
