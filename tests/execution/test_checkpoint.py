"""The record of a run that may be killed."""

import json
from pathlib import Path

import numpy as np
import pytest

from plait.errors import OutputError
from plait.execution.blocks import Block
from plait.execution.checkpoint import Finished, Run, digest_of

IDENTITY = {
    "inputs": {"the effects": "blake2b:1", "the prior": "blake2b:2"},
    "options": {"alpha": 1.0, "missing": "exact"},
    "size": [10, 3],
}


@pytest.fixture(params=["disk", "memory"])
def run(request, tmp_path):
    place = str(tmp_path / "a.run") if request.param == "disk" else f"memory://{tmp_path}/a.run"
    yield Run(place)
    Run(place).discard()


def test_a_run_goes_on(run):
    assert run.begin(IDENTITY) is None
    assert run.finished() == {}
    run.record(Block(2048, 4096), "b")
    run.record(Block(0, 2048), "a", {"left out": 3})
    assert run.begin(IDENTITY) is None
    first = Finished("a", {"left out": 3})
    assert run.finished() == {Block(0, 2048): first, Block(2048, 4096): Finished("b", {})}
    run.discard()
    assert run.finished() == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": {"the effects": "blake2b:9", "the prior": "blake2b:2"}}, "the effects changed"),
        ({"options": {"alpha": 0.0, "missing": "exact"}}, "alpha was 1.0 and is 0.0"),
        ({"size": [11, 3]}, r"size was \[10, 3\] and is \[11, 3\]"),
    ],
)
def test_another_run_starts_anew_and_says_why(run, change, reason):
    import re

    run.begin(IDENTITY)
    run.record(Block(0, 1024), "a")
    assert re.search(reason, run.begin(IDENTITY | change))
    assert run.finished() == {}


def test_damaged_records_are_not_believed(tmp_path):
    run = Run(str(tmp_path / "a.run"))
    run.begin(IDENTITY)
    run.record(Block(0, 1024), "a")
    blocks = Path(run.folder, "blocks")
    (blocks / "000000000001024.json").write_text('{"start": 1024, "st')
    (blocks / "000000000002048.json.partial").write_text("{}")
    for number, text in enumerate(
        ["3", "null", "[]", '{"start": null, "stop": 3, "digest": "", "about": {}}']
    ):
        (blocks / f"{4096 + number}.json").write_text(text)
    assert list(run.finished()) == [Block(0, 1024)]
    for damaged in ("{", "3", "null"):
        (tmp_path / "a.run/run.json").write_text(damaged)
        assert "damaged" in run.begin(IDENTITY)
        assert run.finished() == {}
    assert json.loads((tmp_path / "a.run/run.json").read_text())["identity"] == IDENTITY


@pytest.mark.parametrize("change", [{}, {"size": [11, 3]}])
def test_who_is_replaced_finds_out_and_harms_nobody(run, change):
    run.begin(IDENTITY)
    run.record(Block(0, 1024), "a")
    other = Run(run.place)
    other.begin(IDENTITY | change)
    taken_over = {} if change else {Block(0, 1024): Finished("a", {})}
    assert other.finished() == taken_over
    for act in (run.require_ownership, run.start_anew, lambda: run.record(Block(1024, 2048), "b")):
        with pytest.raises(OutputError, match="another run has taken over"):
            act()
    run.abandon()
    assert other.finished() == taken_over
    other.record(Block(1024, 2048), "c")
    third = Run(run.place)
    assert third.begin(IDENTITY | change) is None
    assert third.finished() == taken_over | {Block(1024, 2048): Finished("c", {})}
    if change:
        assert run.folder != third.folder  # a late writer hits another place


def test_a_takeover_that_was_killed_half_way(tmp_path):
    run = Run(str(tmp_path / "a.run"))
    run.begin(IDENTITY)
    run.record(Block(0, 1024), "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Run(run.place).begin(IDENTITY)
    assert run.begin(IDENTITY) is None
    assert list(run.finished()) == [Block(0, 1024)]


def test_all_blocks_are_required(run):
    run.begin(IDENTITY)
    run.record(Block(0, 1024), "a")
    run.record(Block(2048, 3000), "b")
    with pytest.raises(OutputError, match="lacks blocks from 1,024 on"):
        run.require_all(3000)
    run.record(Block(1024, 2048), "c")
    run.require_all(3000)
    run.keep([Block(0, 1024), Block(1024, 2048)])
    with pytest.raises(OutputError, match="lacks blocks from 2,048 on"):
        run.require_all(3000)


def test_digests_see_every_bit():
    a = np.arange(12.0).reshape(3, 4)
    b = a.copy()
    b[1, 2] = np.nextafter(b[1, 2], 9)
    assert digest_of([a]) == digest_of([np.asfortranarray(a)])
    assert digest_of([a]) != digest_of([b])
    assert digest_of([a, b]) != digest_of([b, a])
