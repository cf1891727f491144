"""Messages of the library in the words of the command line.

The library speaks of arguments: ``min_frequency``, ``overwrite=True``, "k is 500". A command knows
how its parameters are written, so that most of it is said by rule; `ARGUMENTS` has the arguments
that have another name there, and `PHRASES` what is no argument at all.
"""

import re
from collections.abc import Mapping

from plait.cli.invocation import Flag, current

ARGUMENTS = {
    "min_minor_count": "min_mac",
    "min_frequency": "min_maf",
    "missing_genotypes": "missing",
    "hardy_weinberg_x": "hwe_x",
    "exclude_regions": "exclude_region",
    "executor": "dask",
    "by_chromosome": "loco",
    "n_train": "train_size",
    "max_iter": "max_iterations",
    "maxiter": "max_iterations",
    "tol": "tolerance",
    "p_index": "strong_p",
    "k": "pcs",
    "region": "exclude_region",
}
"""Arguments of the library, and the parameters that they are of commands without that one."""
PHRASES = {
    "mark them missing (NaN)": "write them as NA",
    " If you know the format, say so (format=...).": "",
    "covariate_missing='drop'": "--drop-missing-covariates",
    "draw it without genotypes": "leave out --geno",
    "this one goes where genotypes are asked for": "give this one as --geno",
    " (or give sample_path)": "",
    " Read dosages instead (dosage='auto').": "",
    "r2=None": "--r2 1",
    "Give missing='drop' to leave them out or 'uniform' to give them the same usage of every "
    "program.": "Leave them out of the screen, or give the usage of all its cells.",
    "raise r2": "raise --r2",
    " (in a scan, loco=False)": "",
    "read_summary_statistics(path, test=...)": "test=...",
    "A small v_ridge may help.": "A small number added to its diagonal may help.",
    ", or give v_ridge=0.01": ", or add 0.01 to the diagonal of --v",
}
"""What is said in other words."""
_WITHOUT = (
    ("overwrite", "to replace it use --overwrite", "give another --out"),
    ("overwrite", ", or --overwrite to write beside them: they are left as they are", ""),
    ("test", " Say which: test=...", ""),
    ("build", ", or say which it is (build=...)", ""),
    ("loco", ", or (in a scan) loco=False", ""),
    ("loco", ", or give by_chromosome=False", ""),
)
"""Advice that a command cannot give, because it lacks the parameter, and what is said instead."""

_TWICE = re.compile(r"(--[\w-]+) \(\w+=\w*\)")
_VALUE = re.compile(r"""(?<![\w'",.-])(\w+)=('[^']*'|"[^"]*"|\.\.\.|[\w./:-]*[\w/])?""")
_SUBJECT = re.compile(r"(?:^|(?<=: )|(?<=; )|(?<=\. ))(\w+)(?= is )")
_NAME = re.compile(r"""(?<![\w'"./=-])([A-Za-z]\w*_\w*)(?![\w'"/(=])""")
_COLUMNS = re.compile(r"columns=\{([^}]*)\}")
_ROLE = re.compile(r"'([^']*)': (?:'([^']*)'|(\.\.\.))")


def as_options(message: str, flags: Mapping[str, Flag] | None = None) -> str:
    """Say a message of the library in the words of a command.

    Parameters
    ----------
    message : str
    flags : mapping of str to Flag, optional
        How the parameters of the command are written. Default: of the command under way.
    """
    if flags is None:
        running = current()
        flags = {} if running is None else running.flags
    for words, others in PHRASES.items():
        message = message.replace(words, others)
    message = _COLUMNS.sub(_as_list, _TWICE.sub(r"\1", message))
    for parameter, words, others in _WITHOUT:
        if flags and parameter not in flags:
            message = message.replace(words, others)

    def flag(name: str) -> Flag | None:
        name = name.lower()
        return flags.get(name) or flags.get(ARGUMENTS.get(name, name))

    def valued(found: re.Match[str]) -> str:
        known = flag(found[1])
        return found[0] if known is None else _written(known, (found[2] or "").strip("'\""))

    def named(found: re.Match[str]) -> str:
        known = flag(found[1])
        return found[0] if known is None else known.name

    for pattern, say in ((_VALUE, valued), (_SUBJECT, named), (_NAME, named)):
        message = pattern.sub(say, message)
    return message


def _written(known: Flag, value: str) -> str:
    """Write an option with a value as one types it."""
    if known.value is None:
        return known.negative or f"no {known.name}" if value == "False" else known.name
    return f"{known.name} {value if value not in ('', '...') else known.value}"


def _as_list(columns: re.Match[str]) -> str:
    """Write a mapping of roles to columns as --columns takes it."""
    roles = [f"{role}={name or more}" for role, name, more in _ROLE.findall(columns[1])]
    return f"--columns {','.join(roles)}{',...' if columns[1].endswith(', ...') else ''}"
