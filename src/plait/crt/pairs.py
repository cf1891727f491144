"""Pairs of a target and a gene: those near each other, all of them, and positive controls."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.arguments import require_made_by
from plait.crt.gene_counts import GeneCounts, genes_of
from plait.crt.gene_data import NON_TARGETING, GeneScreenData
from plait.data.words import counted
from plait.errors import InputError, InputTypeError, LabelError, OptionError

if TYPE_CHECKING:
    from polars import DataFrame

_log = logging.getLogger("plait.crt")

_EXCLUDED = ("none", "pc_pairs", "pairs_containing_pc_targets")
_RESPONSES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of targets and genes.

    Attributes
    ----------
    targets, responses : (P,) arrays of str
    """

    targets: NDArray[np.str_]
    responses: NDArray[np.str_]

    @classmethod
    def of(cls, source: Any) -> "Pairs":
        """Return pairs from a table with ``grna_target`` and ``response_id``, or from tuples.

        Raises
        ------
        LabelError
            A column is missing, or a pair occurs twice.
        InputTypeError
            It is neither (also a TypeError).
        """
        if isinstance(source, Pairs):
            return source
        if hasattr(source, "columns") or hasattr(source, "keys"):
            columns = []
            for name in ("grna_target", "response_id"):
                if name not in source:
                    raise LabelError(f"the table of pairs has no column {name!r}.")
                columns.append(np.asarray(source[name]).astype(np.str_))
        else:
            try:
                rows = [(str(target), str(response)) for target, response in source]
            except (TypeError, ValueError):
                raise InputTypeError(
                    f"the pairs are {source!r:.50}; give a table with grna_target and response_id, "
                    "or tuples of a target and a gene."
                ) from None
            columns = [np.array([row[i] for row in rows], dtype=np.str_) for i in range(2)]
        pairs = list(zip(columns[0].tolist(), columns[1].tolist(), strict=True))
        if len(set(pairs)) < len(pairs):
            seen: set[tuple[str, str]] = set()
            twice = next(pair for pair in pairs if pair in seen or seen.add(pair))  # type: ignore[func-returns-value]
            raise LabelError(f"the pair of {twice[0]!r} and {twice[1]!r} occurs twice.")
        return cls(columns[0], columns[1])

    def __len__(self) -> int:
        return len(self.targets)

    def to_frame(self) -> "DataFrame":
        """Return a table: ``grna_target``, ``response_id``."""
        import polars as pl

        return pl.DataFrame({"grna_target": self.targets, "response_id": self.responses})

    def without(self, is_left_out: NDArray[np.bool_]) -> "Pairs":
        """Return the pairs but for some."""
        return Pairs(self.targets[~is_left_out], self.responses[~is_left_out])

    def require_known(self, data: GeneScreenData) -> None:
        """Refuse pairs with a target or a gene that the data do not have.

        Raises
        ------
        LabelError
            There is one.
        """
        for names, known, what in (
            (self.targets, set(data.targets.targets.tolist()), "target"),
            (self.responses, set(data.response_names.tolist()), "gene"),
        ):
            if unknown := [name for name in dict.fromkeys(names.tolist()) if name not in known]:
                raise LabelError(
                    f"the pairs have {counted(len(unknown), what)} that the data do not have "
                    f"(first: {unknown[0]!r})."
                )
        if NON_TARGETING in self.targets:
            raise LabelError(
                f"the pairs have the target {NON_TARGETING!r}; its guides are tested by the "
                "calibration check."
            )


def _require_data(data: GeneScreenData) -> None:
    require_made_by(data, "data", ("response_names", "target_names"), "gene_screen_data")


def positive_control_pairs(data: GeneScreenData) -> Pairs:
    """Return the pairs of each target that is called like a gene with that gene."""
    _require_data(data)
    genes = set(data.response_names.tolist())
    names = np.array([name for name in data.target_names if name in genes], dtype=np.str_)
    return Pairs(names, names)


def trans_pairs(
    data: GeneScreenData, positive_controls: Pairs | None = None, exclude: str = "none"
) -> Pairs:
    """Return all pairs of a target and a gene.

    Parameters
    ----------
    data : GeneScreenData
    positive_controls : Pairs, optional
        Those to leave out.
    exclude : {"none", "pc_pairs", "pairs_containing_pc_targets"}
        Leave out nothing, the positive controls, or all pairs with a target of one.

    Raises
    ------
    OptionError
        The option is unknown, or there are no positive controls to leave out.
    """
    if exclude not in _EXCLUDED:
        raise OptionError(f"exclude is {exclude!r}; give one of {', '.join(_EXCLUDED)}.")
    _require_data(data)
    targets = np.array(data.target_names, dtype=np.str_)
    pairs = Pairs(
        np.repeat(targets, len(data.response_names)), np.tile(data.response_names, len(targets))
    )
    if exclude == "none":
        return pairs
    if positive_controls is None:
        raise OptionError(f"exclude is {exclude!r}; give the positive controls, too.")
    if exclude == "pairs_containing_pc_targets":
        return pairs.without(np.isin(pairs.targets, positive_controls.targets))
    known = set(
        zip(positive_controls.targets.tolist(), positive_controls.responses.tolist(), strict=True)
    )
    both = zip(pairs.targets.tolist(), pairs.responses.tolist(), strict=True)
    return pairs.without(np.array([pair in known for pair in both], dtype=bool))


def cis_pairs(
    data: GeneScreenData,
    gene_positions: Any,
    positive_controls: Pairs | None = None,
    distance: int = 500_000,
) -> Pairs:
    """Return the pairs of a target and a gene near it.

    Parameters
    ----------
    data : GeneScreenData
        Its table of targets has ``chr``, ``start`` and ``end``.
    gene_positions : table
        ``response_id``, ``chr`` and ``position`` (of the start of transcription), a row for a gene.
        Genes that it does not have are in no pair, which a logged note says.
    positive_controls : Pairs, optional
        Their targets are left out.
    distance : int
        Bases between the gene and the middle of the target, at most. The middle is that of all its
        guides; targets with guides of unknown position, or on several chromosomes, are in no pair,
        which a logged note says.

    Raises
    ------
    InputError
        Targets have no positions.
    LabelError
        The table lacks a column, or has a gene of the data twice.
    OptionError
        The distance is negative.
    """
    if distance < 0:
        raise OptionError(f"the distance is {distance} bases; give 0 or more.")
    about = data.targets
    if about.chromosome is None or about.start is None or about.end is None:
        raise InputError("the table of targets has no columns 'chr', 'start' and 'end'.")
    genes, chromosomes, positions = _positions(gene_positions, data)
    left_out = set() if positive_controls is None else set(positive_controls.targets.tolist())
    targets, responses, nowhere = [], [], []
    for target in data.target_names:
        if target in left_out:
            continue
        columns = about.columns_of(target)
        start, end = about.start[columns], about.end[columns]
        on = set(about.chromosome[columns].tolist())
        if not (np.isfinite(start).all() and np.isfinite(end).all()) or len(on) > 1 or "" in on:
            nowhere.append(target)
            continue
        middle = np.floor((start.min() + end.max()) / 2.0)
        near = genes[
            (chromosomes == about.chromosome[columns[0]]) & (np.abs(positions - middle) <= distance)
        ]
        targets += [target] * len(near)
        responses += near.tolist()
    if nowhere:
        _log.info(
            "in no pair, as positions of their guides are missing or on several chromosomes: %d of "
            "%d targets (%s)",
            len(nowhere),
            len(data.target_names),
            listed(nowhere),
            extra={"notice": True},
        )
    return Pairs(np.array(targets, dtype=np.str_), np.array(responses, dtype=np.str_))


def _positions(
    table: Any, data: GeneScreenData
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.float64]]:
    for name in ("response_id", "chr", "position"):
        if name not in table:
            raise LabelError(f"the table of positions of genes has no column {name!r}.")
    genes = np.asarray(table["response_id"]).astype(np.str_)
    names, times = np.unique(genes, return_counts=True)
    if len(twice := names[(times > 1) & np.isin(names, data.response_names)]):
        raise LabelError(
            f"the table of positions of genes has {len(twice):,} of the screen's genes more than "
            f"once (first: {str(twice[0])!r}); give each gene one position."
        )
    places = {name: row for row, name in enumerate(genes.tolist())}
    rows = np.array(
        [places[name] for name in data.response_names.tolist() if name in places], dtype=np.intp
    )
    positions = np.asarray(table["position"], dtype=np.float64)[rows]
    placed = set(genes[rows][np.isfinite(positions)].tolist())
    if nowhere := [name for name in data.response_names.tolist() if name not in placed]:
        _log.info(
            "in no pair, as the table has no position of them: %d of %s (%s)",
            len(nowhere),
            counted(len(data.response_names), "gene"),
            listed(nowhere),
            extra={"notice": True},
        )
    return genes[rows], np.asarray(table["chr"]).astype(np.str_)[rows], positions


def nonzero_treated(
    responses: GeneCounts,
    treated: csc_array,
    response: NDArray[np.integer],
    unit: NDArray[np.integer],
) -> NDArray[np.int64]:
    """Return in how many treated cells each pair's gene has counts.

    Parameters
    ----------
    responses : (cells, genes) csc_array or StoredCounts
    treated : (cells, units) csc_array
    response, unit : (P,) arrays of int
        Columns of the pairs.

    Returns
    -------
    (P,) array of int

    Notes
    -----
    Time that of a product of sparse matrices; memory 8 x 256 x units bytes.
    """
    found = np.zeros(len(response), dtype=np.int64)
    ones = csc_array(
        (np.ones(treated.nnz, dtype=np.int32), treated.indices, treated.indptr),
        shape=treated.shape,
    )
    genes = np.unique(response)
    order = np.argsort(response, kind="stable")
    for begin in range(0, len(genes), _RESPONSES_AT_ONCE):
        some = genes[begin : begin + _RESPONSES_AT_ONCE]
        present = genes_of(responses, some).astype(bool).astype(np.int32)
        counts = (present.T @ ones).toarray()
        first, last = np.searchsorted(response[order], [some[0], some[-1] + 1])
        rows = order[first:last]
        found[rows] = counts[np.searchsorted(some, response[rows]), unit[rows]]
    return found


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names for a message, the first few of them."""
    given = list(names)
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(map(repr, given[:most])) + more
