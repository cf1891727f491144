"""The record of a run that may be killed."""

import json

import numpy as np
import pytest

from plait.execution.blocks import Block
from plait.execution.checkpoint import Run, digest_of

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
    run.record(Block(0, 2048), "a")
    assert run.begin(IDENTITY) is None
    assert run.finished() == {Block(0, 2048): "a", Block(2048, 4096): "b"}
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
    (tmp_path / "a.run/blocks/000000000001024.json").write_text('{"start": 1024, "st')
    (tmp_path / "a.run/blocks/000000000002048.json.partial").write_text("{}")
    assert list(run.finished()) == [Block(0, 1024)]
    (tmp_path / "a.run/run.json").write_text("{")
    assert "damaged" in run.begin(IDENTITY)
    assert json.loads((tmp_path / "a.run/run.json").read_text()) == IDENTITY


def test_digests_see_every_bit():
    a = np.arange(12.0).reshape(3, 4)
    b = a.copy()
    b[1, 2] = np.nextafter(b[1, 2], 9)
    assert digest_of([a]) == digest_of([np.asfortranarray(a)])
    assert digest_of([a]) != digest_of([b])
    assert digest_of([a, b]) != digest_of([b, a])
