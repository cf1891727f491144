"""The guide to perturbation screens runs."""

import re
from pathlib import Path

import pytest

from tests.cli.pictures import leave_pictures_empty
from tests.test_readme import ROOT, run

GUIDE = ROOT / "docs/crt.md"


@pytest.mark.filterwarnings("ignore:covariates left out")
def test_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|bash)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for language, block in blocks:
        if language == "python":
            exec(compile(block, "docs/crt.md", "exec"), names)
            continue
        for command in block.strip().splitlines():
            with monkeypatch.context() as patch:
                if not any(rare in command for rare in ("--moi high", "--on-disk")):
                    leave_pictures_empty(patch)  # those of other commands draw the same
                assert run(command) == 0, command
    text = GUIDE.read_text(encoding="utf-8")
    table = text.split("## Output of `plait crt run`")[1]
    told = set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE))
    assert told == {path.name for path in Path("screened").iterdir()}
    columns = set(re.findall(r"`(\w+)`", next(r for r in table.split("\n") if "effects.parq" in r)))
    assert columns - {"effects"} <= set(names["table"].columns)
