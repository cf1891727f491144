"""The tables that the commands for gene-level screens read, beside the screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.inputs import errors_naming, refuse_idle
from plait.errors import FileFormatError, InputError, LabelError, OptionError

if TYPE_CHECKING:
    from plait.crt.gene_data import GeneScreenData
    from plait.crt.pairs import Pairs

_PAIR = ("grna_target", "response_id")
ASSIGNED = ("grna_id", "cell")
"""Columns of what 'plait crt assign' wrote."""


def read_tables(
    pairs: str | None,
    gene_positions: Path | None,
    positive_controls: Path | None,
    assignment: Path | None,
) -> dict[str, Any]:
    """Read the tables that options name, before the screen, which takes longer."""
    refuse_idle(("gene_positions",), pairs != "cis", "without --pairs cis")
    if pairs == "cis" and gene_positions is None:
        raise OptionError("--pairs cis needs --gene-positions FILE: where genes are.")
    is_file = pairs not in (None, "trans", "cis")
    if is_file and not Path(str(pairs)).is_file():
        raise OptionError(
            f"--pairs is {pairs!r}; give trans, cis, or a table with grna_target and response_id "
            "(there is no such file)."
        )
    return {
        "pairs": read_table_with(Path(str(pairs)) if is_file else None, *_PAIR),
        "gene_positions": read_table_with(gene_positions, "response_id", "chr", "position"),
        "positive_controls": read_table_with(positive_controls, *_PAIR),
        "assignment": read_table_with(assignment, *ASSIGNED),
    }


def read_table_with(path: Path | None, *columns: str) -> Any:
    """Read a table that has some columns, and rows."""
    from plait.io.summary_statistics import read_table

    if path is None:
        return None
    table = read_table(path)
    if absent := [name for name in columns if name not in table.columns]:
        raise LabelError(
            f"{path} has no column {absent[0]!r}; it has {', '.join(table.columns[:10])}. Give a "
            f"table with {', '.join(columns)}."
        )
    if not table.height:
        raise FileFormatError(f"{path} has no rows below its header.")
    return table


def known_pairs(data: "GeneScreenData", table: Any, path: Path) -> "Pairs":
    """Return the pairs of a table, whose targets and genes the screen has."""
    from plait.crt.pairs import Pairs

    with errors_naming(str(path)):
        found = Pairs.of(table)
        found.require_known(data)
    return found


def pairs_of(
    data: "GeneScreenData",
    pairs: str | None,
    gene_positions: Path | None,
    tables: dict[str, Any],
    known: "Pairs",
) -> "Pairs | None":
    """Return the pairs that --pairs asks for; ``known`` are the positive controls."""
    from plait.crt.pairs import cis_pairs, trans_pairs

    if pairs is None:
        return None
    if pairs == "trans":
        return trans_pairs(data)
    if pairs != "cis":
        return known_pairs(data, tables["pairs"], Path(pairs))
    if data.targets.chromosome is None:
        raise InputError(
            "--pairs cis needs where targets are: columns chr, start and end in the table that "
            "--targets names."
        )
    with errors_naming(str(gene_positions)):
        found = cis_pairs(data, tables["gene_positions"], known)
    if not len(found):
        raise InputError(
            f"{gene_positions}: no gene of the screen is within 500 kb of a target. Chromosomes "
            "must be written as in the table of targets, and genes as in the screen."
        )
    return found
