"""Errors and warnings of the library are said in the words of the command line."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
import typer

import plait
from plait.cli.invocation import Flag, flag_of
from plait.cli.main import app
from plait.cli.words import as_options

FLAGS = {
    "model": Flag("--model", "MODEL"),
    "loco": Flag("--loco", None, "--no-loco"),
    "k": Flag("--components", "K"),
    "min_maf": Flag("--min-maf", "X"),
    "overwrite": Flag("--overwrite"),
    "memory": Flag("--memory", "SIZE"),
    "dialect": Flag("--dialect", "NAME"),
    "context": Flag("--context", "NAME"),
}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("k is 500; of 200 samples", "--components is 500; of 200 samples"),
        ("model='mixed' or \"linear\"", '--model mixed or "linear"'),
        ("o exists; use --overwrite (overwrite=True).", "o exists; use --overwrite."),
        ("Give more, or loco=False.", "Give more, or --no-loco."),
        ("Lower min_frequency.", "Lower --min-maf."),
        ("give dialect=.", "give --dialect NAME."),
        ("one context only; leave out context=EUR.", "one context only; leave out --context EUR."),
        ("raise --memory (memory=), or wait", "raise --memory, or wait"),
        # What a user has named is left alone.
        ("trait 'min_frequency' is 3", "trait 'min_frequency' is 3"),
        ("my_model=3.csv: the model is missing", "my_model=3.csv: the model is missing"),
        ("a/min_frequency.csv is damaged", "a/min_frequency.csv is damaged"),
    ],
)
def test_arguments_become_options(message, said):
    assert as_options(message, FLAGS) == said


def test_advice_that_a_command_cannot_give_is_left_out():
    message = "out exists; to replace it use --overwrite (overwrite=True)."
    assert as_options(message, FLAGS) == "out exists; to replace it use --overwrite."
    without = {name: flag for name, flag in FLAGS.items() if name != "overwrite"}
    assert as_options(message, without) == "out exists; give another --out."
    message = "Give more variants, or (in a scan) loco=False."
    assert as_options(message, FLAGS) == "Give more variants, or (in a scan) --no-loco."
    without = {name: flag for name, flag in FLAGS.items() if name != "loco"}
    assert as_options(message, without) == "Give more variants."


def _text(node):
    """Return the text of a message, X where a value stands."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "'X'" if part.conversion > 0 else "X"
            for part in node.values
        )
    return ""


def raised():
    """Return every message that is raised where commands of scans and tables come by."""
    root = Path(plait.__file__).parent
    for package in ("data", "execution", "gwas", "io", "studies"):
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    text = "".join(_text(argument) for argument in node.exc.args)
                    if text:
                        yield f"{package}/{path.name}", text


def commands():
    """Return how each of these commands writes its parameters."""
    program = typer.main.get_command(app)
    groups = [program.commands[name].commands for name in ("gwas", "sumstats")]
    found = [command for group in groups for command in group.values()]
    found.append(program.commands["gwas-to-mash"])
    return [{option.name: flag_of(option) for option in command.params} for command in found]


PYTHON = re.compile(
    r"""(?<![\w'"-])[a-z]\w*=(?!=)|(?<![\w'"./-])[A-Za-z]+_[a-z]\w*(?!['"\w])|^[a-z]\w* is '?X\b"""
)
"""An argument with its value; a name with an underscore; a message whose subject is a name."""
UNREACHED = {
    "no command has the argument": (
        "covariate_missing is", "bad_se is", "precision is", "saddlepoint_above is", "p_index is",
        "exact_below is", "executor is", "key is", "kind is", "p is 'X'; give 'auto'",
        "partition is", "window_kb and window_variants", "window_variants is", "step is",
    ),
    "plait gwas kinship takes calls, and asks for relatives where it may": (
        "which is of hard calls, and these", "which does not tell degrees",
    ),
    "scans and tables need no GPU": ("device is 'X'; choose", "needs PyTorch"),
    "no command reads outputs of eQTL mapping": ("looks like X, which",),
    "scans and tables have no guides": ("the file does not say what guides target",),
    "arrays that commands make themselves": ("hm_code has shape", "n_variants has shape"),
    "names that files have": (
        "one trait_description", "with keys of GWAS-SSF", "u_names", "vcf_zarr_version",
        "variant_allele", "odds_ratio, hazard_ratio", "filtered_feature_bc_matrix.h5",
    ),
}  # fmt: skip
"""Messages that the commands of scans and tables cannot raise, or where names are rightly said."""


def test_no_message_speaks_python():
    known = commands()
    left = []
    excused = {part: 0 for parts in UNREACHED.values() for part in parts}
    for place, text in raised():
        said = (re.sub(r"--columns \S+", "", as_options(text, flags)) for flags in known)
        if any(PYTHON.search(text) is None for text in said):
            continue
        parts = [part for part in excused if part in text]
        excused |= dict.fromkeys(parts, 1)
        if not parts:
            left.append(f"{place}: {text}")
    assert left == []
    assert [part for part, met in excused.items() if not met] == []


NO_NOUN = (
    "across|acts|and|are|a[st]|be|beside|but|by|cannot|comes|contradicts|does|fits|for|from|has|have|"
    "hel[dp]|holds?|in|is|its|less|lies|make|must|names|needs|not|o[fnr]|returns|targets a|tells|"
    "than|that|the|this|times|to|us|was|which|whose|with"
)
"""Words behind a number that end in s and are no plural, or that stand before other nouns."""
SEVERAL = re.compile(
    rf" (?:(?!(?:{NO_NOUN})\b)[a-z-]+ ){{0,2}}"
    rf"(?!(?:{NO_NOUN})\b)(?:[a-z]+s|people)\b(?!=)"
)
"""What follows a number that is taken for several, whatever it is."""
NEVER_ONE = {
    "bounds that are more than 1": (
        "{FEWEST_COUNTS} counts", "{_FEWEST_FOR_A_FOREST} observations", "{_ENOUGH} effects",
        "{_FEW_TREATED} treated cells", "{_EM_EFFECTS} random effects",
        "{needed} non-targeting guides", "{FEWEST_GUIDES * size} guides", "{given} frequency bins",
    ),
    "numbers that are wrong, or ask for what is not there": (
        "{distance} bases", "{group_size} guides", "{resamples} resamples were",
    ),
    "one is said otherwise": (
        "{found.n_contexts} contexts", "{found.n_effects} effects", "{len(others)} others",
        "{found.n_anywhere} significant effects", "{len(names)} perturbations act",
        "{n_active} perturbations", "{count} perturbations", "{n_strong} signals have",
        "{len(rows)} surest pairs",
    ),
    "of several traits, contexts, programs or genes alone": (
        "{len(contexts)} contexts", "{len(names)} contexts", "{len(self.traits.names)} traits",
        "{len(table.names)} traits", "{len(names)} traits", "{len(own)} traits",
        "{len(ranked)} programs", "{n_genes} genes",
    ),
    "no counts": ("{what} values", "{SCREEN} --pairs", "{geno} --pheno"),
    "aligned, for a row of a table": ("{int(found.by_order.sum())} insertions",),
}  # fmt: skip
"""Numbers before plurals that are rightly there."""


def plurals():
    """Return every number that a message, note or page puts before a plural, as it is."""
    root = Path(plait.__file__).parent
    for package in ("cli", "crt", "report", "studies"):
        for path in sorted((root / package).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for number, text in pairwise(getattr(node, "values", ())):
                    if (
                        isinstance(node, ast.JoinedStr)
                        and isinstance(number, ast.FormattedValue)
                        and isinstance(text, ast.Constant)
                        and number.conversion < 0
                        and "counted(" not in ast.unparse(number.value)
                        and SEVERAL.match(text.value)
                    ):
                        is_share = number.format_spec and "%" in ast.unparse(number.format_spec)
                        if not is_share:
                            said = f"{{{ast.unparse(number.value)}}}{text.value[:60]}"
                            yield f"{package}/{path.name}: {said}"


def test_one_is_never_several():
    """A number before a noun is said by `plait.data.words.counted`, or cannot be 1."""
    excused = {part: 0 for parts in NEVER_ONE.values() for part in parts}
    left = []
    for place in plurals():
        parts = [part for part in excused if part in place]
        excused |= dict.fromkeys(parts, 1)
        if not parts:
            left.append(place)
    assert left == []
    assert [part for part, met in excused.items() if not met] == []
