"""Every snippet of the README and the guides runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from plait import simulate
from plait.cli.demo import write_cohort

ROOT = Path(__file__).parents[1]


def snippets(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    from plait.mash import simple_sims

    monkeypatch.chdir(tmp_path)
    sim = simple_sims(100, 4, 0.8, seed=1)
    for name in ("Bhat", "Shat"):
        np.savetxt(f"{name.lower()}.csv", sim[name], delimiter=",", header="a,b,c,d", comments="")
    return tmp_path


def run(command):
    from plait.cli.main import main

    words = shlex.split(command)
    assert words[0] == "plait"
    return main(words[1:])


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
def test_readme(tables):
    genotypes_road, tables_road, store_road = snippets("README.md", "bash")
    blocks = snippets("README.md", "python")
    assert len(blocks) == 3
    write_cohort(simulate.cohort(400, 2000, 10, 2), tables)
    for command in (genotypes_road + tables_road).strip().splitlines():
        assert run(command) == 0, command
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    for command in store_road.strip().splitlines():
        assert run(command) == 0, command


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
def test_guide(tables):
    write_cohort(simulate.cohort(400, 2000, 10, 2), tables)
    for command in "".join(snippets("docs/gwas.md", "bash")[:2]).strip().splitlines():
        assert run(command) == 0, command
    exec(compile("".join(snippets("docs/gwas.md", "python")[:2]), "docs/gwas.md", "exec"), {})
    blocks = snippets("docs/mash.md", "python")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/mash.md", "exec"), {})


PAGES = ("README.md", "CONTRIBUTING.md", "docs/index.md", "docs/mash.md", "docs/gwas.md")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


def test_the_guide_names_every_output(tables):
    """Nothing is written that the guide does not explain."""
    import json

    guide = (ROOT / "docs/mash.md").read_text(encoding="utf-8")
    options = "--outputlevel 4 --output-lfdr --posterior-samples 2 --quiet"
    assert run(f"plait mash fit --bhat bhat.csv --shat shat.csv --out r {options}") == 0
    with np.load("r.npz") as archive:
        names = set(archive.files)
    names |= set(json.loads(Path("r.json").read_text(encoding="utf-8")))
    for name in names:
        assert f"`{name}`" in guide, name
