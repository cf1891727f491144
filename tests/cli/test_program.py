"""The program around the commands: help, examples, progress, errors and exit statuses."""

import re
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from plait import mash as pm
from plait.cli import console, study
from plait.cli import gwas as gwas_commands
from plait.cli.main import app, join_numbers, main, only_what_is_asked
from plait.cli.mash import COMMANDS
from plait.errors import ConvergenceError, InputError, ModelWarning, OutputError

runner = CliRunner()


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """A small version of what `make demo` writes."""
    folder = tmp_path_factory.mktemp("work")
    done = main(f"demo --out {folder}/demo --people 500 --variants 2000 --quiet".split())
    assert done == 0
    return folder


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
@pytest.mark.parametrize(("name", "example"), [(name, example) for name, _, example in COMMANDS])
def test_the_example_of_every_help_runs(demo_folder, monkeypatch, tmp_path, name, example):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(demo_folder / "demo")
    shown = runner.invoke(app, ["mash", name, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert f"Example: {example}" in shown.output
    assert "Docs: docs/mash.md" in shown.output
    done = runner.invoke(app, example.split()[1:])
    assert done.exit_code == 0, done.output
    if "--out" in example:
        prefix = example.split("--out ")[1]
        assert list(tmp_path.glob(f"{prefix}*"))


def test_options_stand_in_panels():
    shown = runner.invoke(app, ["mash", "fit", "--help"], env={"COLUMNS": "120"}).output
    for panel in ("Input", "Model", "Output", "Run"):
        assert f" {panel} " in shown
    for option in (
        "--bhat", "--shat", "--effects", "--out", "--alpha", "--v", "--ulist", "--cov-methods",
        "--grid", "--gridmult", "--no-normalize-u", "--no-pointmass", "--prior", "--nullweight",
        "--optmethod", "--pi-thresh", "--posterior-samples", "--seed", "--outputlevel",
        "--output-lfdr", "--chunk-size", "--train-size", "--select-method", "--weighting",
        "--background-fraction", "--missing", "--conditions", "--threads", "--quiet", "--debug",
        "--overwrite",
    ):  # fmt: skip
        assert option in shown


def commands_of(command, words=()):
    """Yield the words of every command and group of the program, and its parser."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_of(inner, (*words, name))


def test_only_the_command_that_is_asked_for_is_made_ready():
    """And tells the same; where there is no such command, all of them are there to be named."""
    runs = [["gwas", "scam"], ["gwass", "scan"], ["--version"], ["gwas", "scan", "--nothing"]]
    runs += [[*words, "--help"] for words, _ in commands_of(get_command(app))]
    for words in runs:
        narrow, whole = only_what_is_asked(app, words), runner.invoke(app, words)
        alone = runner.invoke(narrow, words)
        assert (alone.output, alone.exit_code) == (whole.output, whole.exit_code)
    narrow = only_what_is_asked(app, ["gwas", "scan", "--out", "qc"])
    assert [words for words, _ in commands_of(get_command(narrow))] == [
        (), ("gwas",), ("gwas", "scan"),
    ]  # fmt: skip
    assert len(list(commands_of(get_command(app)))) > 30


DRAWN = """
import sys
from plait.cli.outputs import use_no_window
if sys.argv[2] == "program":
    use_no_window()
else:
    import matplotlib
    matplotlib.use("Agg")
from plait import plot
axes = plot.manhattan(["1", "2"] * 50, range(100), [-9.0, -0.5] * 50, caption=True, title="A")
axes.figure.legend(["one"]).set(alpha=0.5, visible=True)
plot.save_figure(axes, sys.argv[1])
print("linewidth" in (type(axes.lines[0]).set.__doc__ or ""))
"""


def test_pictures_of_commands_are_those_of_the_library(tmp_path):
    """Though commands do without the texts of help that Matplotlib makes of all that is drawn."""
    documented = []
    for how in ("program", "library"):
        line = [sys.executable, "-c", DRAWN, str(tmp_path / f"{how}.png"), how]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        documented.append(done.stdout.strip())
    assert documented == ["False", "True"]
    assert (tmp_path / "program.png").read_bytes() == (tmp_path / "library.png").read_bytes()


@pytest.mark.parametrize("width", ["80", "120"])
def test_help_says_what_is_typed_after_an_option(width):
    """Nothing after a flag; and names of choices are never broken, however narrow the help."""
    seen = 0
    for words, command in commands_of(get_command(app)):
        shown = runner.invoke(app, [*words, "--help"], env={"COLUMNS": width}).output
        assert "bool" not in shown.lower()
        assert max(map(len, shown.splitlines())) <= int(width)
        for option in command.params:
            described = getattr(option, "type_descriptor", None)
            if described is None or not described.is_choice or option.metavar == "MODEL":
                continue
            for choice in described.choices:
                seen += 1
                assert re.search(rf"(?<![\w-]){choice}(?![\w-])", shown), (words, choice)
    assert seen > 30


def test_paragraphs_of_help_are_broken_by_the_terminal():
    narrow = CliRunner().invoke(app, ["sumstats", "combine", "--help"], env={"COLUMNS": "80"})
    lines = [line.strip() for line in narrow.output.splitlines()]
    first = next(k for k, line in enumerate(lines) if line.startswith("Variants are called"))
    paragraph = lines[first : lines.index("", first)]
    assert len(paragraph) > 2
    assert all(len(line) > 60 for line in paragraph[:-1])


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from plait.cli.main import main; main(['mash', 'fit', '--help']); "
        "heavy = {'numba', 'pandas', 'xarray', 'zarr', 'polars', 'matplotlib', 'scipy'}; "
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


def test_welcome_lists_only_what_exists():
    said = runner.invoke(app, []).output
    assert "plait mash" in said
    assert "plait gwas" in said
    for later in ("ctmm", "bayes", "hiergwas"):
        assert later not in said
    assert runner.invoke(app, ["mash"]).exit_code == 0


def test_shell_completion_is_offered():
    assert "--install-completion" in runner.invoke(app, ["--help"], env={"COLUMNS": "120"}).output


def test_numbers_may_follow_one_option():
    assert join_numbers(["fit", "--grid", "0.5", "1", "2e-1", "--out", "r"]) == [
        "fit", "--grid", "0.5,1,2e-1", "--out", "r",
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["--grid 0.5 1 2", "--grid 0.5,1,2"])
def test_grid(demo_folder, monkeypatch, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    table = demo_folder / "demo" / "tables" / "bhat.csv"
    assert main(f"mash fit --bhat {table} {given} --out r --quiet".split()) == 0
    with np.load("r.npz") as archive:
        np.testing.assert_array_equal(archive["grid"], [0.5, 1, 2])


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
def test_demo_by_hand_gives_the_same(demo_folder, monkeypatch, tmp_path):
    """The command that the demo prints for doing it by hand reproduces its result."""
    monkeypatch.chdir(tmp_path)
    demo = demo_folder / "demo"
    command = (
        f"gwas-to-mash --geno {demo}/genotypes.bed --pheno {demo}/traits.csv --covar "
        f"{demo}/covariates.csv --out again --quiet"
    )
    assert main(command.split()) == 0
    again = pm.MashResult.load("again/result.zarr")
    with np.load(demo / "tables" / "results.npz") as first:
        np.testing.assert_allclose(again.lfsr, first["lfsr"], atol=1e-10)
        assert list(again.effect_names) == first["effect_names"].tolist()


def test_the_examples_of_the_road(demo_folder, monkeypatch, tmp_path):
    """The help of the scan and of the whole road, with commands that run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(demo_folder / "demo")
    for words in (["gwas", "scan"], ["gwas-to-mash"]):
        shown = runner.invoke(app, [*words, "--help"], env={"COLUMNS": "220"})
        assert shown.exit_code == 0
        assert "Docs: docs/gwas.md" in shown.output
        assert "Example: plait " + " ".join(words) in shown.output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for example in (gwas_commands.EXAMPLE, study.EXAMPLE):
            done = runner.invoke(app, example.split()[1:])
            assert done.exit_code == 0, done.output
    assert (tmp_path / "scanned" / "effects.zarr").exists()
    assert (tmp_path / "my_study" / "result.zarr").exists()


def test_strong_effects_from_a_screen(demo_folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    demo = demo_folder / "demo" / "tables"
    tables = f"--bhat {demo}/bhat.csv --shat {demo}/shat.csv --alpha 1"
    assert main(f"mash pca {tables} --out now.npz --npc 3".split()) == 0
    assert main(f"mash pca {tables} --strong {demo}/screen.npz --out s.npz --npc 3".split()) == 0
    with np.load("now.npz") as now, np.load("s.npz") as before:
        np.testing.assert_allclose(np.abs(now["u_stack"]), np.abs(before["u_stack"]), atol=1e-10)
    assert main(f"mash pca {tables} --all-effects --out all.npz --npc 3".split()) == 0
    capsys.readouterr()
    assert main(f"mash pca {tables} --level 0 --out none.npz".split()) == 2
    assert "--all-effects" in capsys.readouterr().err


def test_progress_is_told_where_there_is_no_terminal(capsys):
    from plait.execution.progress import stage

    with console.session(None, quiet=False):
        for _ in range(3):
            with stage("counting", 1000) as advance:
                advance(1000, "all of them")
        with stage("thinking", 0):
            pass
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("counting")
    assert "1,000" in said[0]
    assert "all of them" in said[0]


def test_findings_come_after_the_stages_that_they_are_of(capsys, monkeypatch):
    """A stage that is over has its line before what is said next, in a log of both."""
    from plait.execution.progress import stage

    monkeypatch.setattr(sys, "stderr", sys.stdout)
    with console.session(None, quiet=False):
        with stage("counting", 1000) as advance:
            advance(500)
            console.say(False, "in its midst")
            advance(500)
        console.say(False, "what was found")
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["in", "counting", "what"]


def test_progress_bars_on_a_terminal(capsys, monkeypatch):
    from plait.execution.progress import stage

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with console.session(None, quiet=False):
        with stage("counting", 10) as advance:
            advance(4)
            console.say(False, "a line between")
        with stage("counting", 20) as advance:
            advance(20)
    assert "counting" in capsys.readouterr().err


def test_bars_of_a_stage_go_when_a_line_says_what_it_did(capsys, monkeypatch):
    from plait.execution.progress import stage

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with console.session(None, quiet=False):
        tell = study.teller(quiet=False)
        for name in ("one", "two"):  # the same inner stage in both
            with stage("counting", 10) as advance:
                advance(10)
            tell(name, "what was done", 0.1)
    said, progress = capsys.readouterr()
    assert [line.split()[0] for line in said.splitlines()] == ["one", "two"]
    assert progress.count("counting") >= 2


def test_quiet_is_quiet(capsys):
    from plait.execution.progress import stage

    with console.session(None, quiet=True):
        console.say(True, "nothing")
        with stage("counting", 10) as advance:
            advance(10)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_warnings_are_single_lines_in_the_words_of_the_program(capsys):
    with console.session(None, quiet=True):
        for _ in range(2):
            warnings.warn("see\nhere (or give sample_path)", ModelWarning, stacklevel=1)
        warnings.warn("of another library", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "plait: warning: see here\n"


def _full_disk():
    error = OutputError("no space left")
    error.__cause__ = OSError(28, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("bad\ninput"), 2, "bad input"),
        (ConvergenceError("did not end"), 3, "did not end"),
        (np.linalg.LinAlgError("singular"), 3, "singular"),
        (_full_disk(), 1, "no space left"),
        (PermissionError(13, "Permission denied", "x.csv"), 1, "x.csv: Permission denied."),
        (MemoryError(), 1, "not enough memory"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError: oh"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_failure_has_one_line_and_a_status(monkeypatch, error, status, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("plait.cli.mash_show.read_result", fail)
    done = runner.invoke(app, ["mash", "sharing", "r.npz"])
    assert done.exit_code == status
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("plait: error: ")
    assert text in lines[0]


def test_debug_shows_the_traceback_and_keeps_the_status():
    done = runner.invoke(app, ["mash", "sharing", "absent.npz", "--debug"])
    assert done.exit_code == 2
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("plait: error: absent.npz")


def test_outputs_are_checked_before_any_work(monkeypatch, tmp_path):
    """A fit of an hour must not end with 'the folder does not exist'."""
    started = time.perf_counter()
    for out in ("no/such/r", "no/such/r.zarr", "no/"):
        done = runner.invoke(app, ["mash", "fit", "--bhat", "absent.csv", "--out", out])
        assert done.exit_code == 2
        assert "absent.csv" not in done.stderr
    assert time.perf_counter() - started < 2


def test_a_store_is_refused_and_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("z.npy", np.random.default_rng(0).normal(size=(50, 3)) * 2)
    command = ["mash", "fit", "--bhat", "z.npy", "--out", "r.zarr", "--quiet"]
    assert main(command) == 0
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert pm.MashResult.load("r.zarr").n_effects == 50


def test_check_fails_loudly(monkeypatch):
    def broken(*_, **__):
        raise ImportError("a library is broken")

    monkeypatch.setattr("plait.mash.mash_set_data", broken)
    done = runner.invoke(app, ["check"])
    assert done.exit_code == 1
    assert "a library is broken" in done.stderr
    assert runner.invoke(app, ["mash", "check"]).exit_code == 1
