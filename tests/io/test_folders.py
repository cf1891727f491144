"""Which folders results are written into."""

import pytest

from plait.errors import OutputError
from plait.io.folders import check_folder, made_folder


def check(folder, **options):
    check_folder(folder, ("result.zarr", "run.json"), **options)


def test_new_and_empty_folders(tmp_path):
    check(tmp_path / "new")
    check(tmp_path)
    (tmp_path / ".hidden").touch()
    (tmp_path / "result.zarr.partial").mkdir()
    (tmp_path / "stages").mkdir()
    check(tmp_path, own=("stages",))
    with pytest.raises(OutputError, match=r"not of this command \(stages\)"):
        check(tmp_path)


def test_other_files_are_kept_apart(tmp_path):
    (tmp_path / "thesis.doc").touch()
    (tmp_path / "a.txt").touch()
    with pytest.raises(OutputError, match=r"\(a.txt and 1 more\). Give a new or an empty folder"):
        check(tmp_path)
    check(tmp_path, overwrite=True)
    check(tmp_path, unfinished="thesis.doc")
    with pytest.raises(OutputError, match="is a file; give a folder"):
        check(tmp_path / "a.txt")


def test_results_are_replaced_only_when_asked(tmp_path):
    (tmp_path / "run.json").touch()
    with pytest.raises(OutputError, match=r"run\.json exists; to replace it"):
        check(tmp_path)
    check(tmp_path, overwrite=True)


def test_what_fails_leaves_no_empty_folder(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    old.mkdir()

    def fail(folder, *names):
        with made_folder(folder):
            for name in names:
                (folder / name).touch()
            raise ValueError("no")

    for folder in (new, old):
        with pytest.raises(ValueError, match="no"):
            fail(folder)
    assert not new.exists() and old.is_dir()
    with pytest.raises(ValueError, match="no"):
        fail(new, "begun")
    assert (new / "begun").exists()
