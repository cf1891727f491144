"""Phenotypes and covariates of samples, and bringing them together with genotypes by name."""

import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.labels import first_repeat
from plait.data.sample_names import no_overlap
from plait.errors import (
    DataWarning,
    DuplicateSampleError,
    InputError,
    LabelError,
    MissingCovariateError,
    OptionError,
    ShapeError,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SampleTable:
    """Numbers measured on samples: one row per sample, one column per thing measured.

    Parameters
    ----------
    samples : sequence of str
        Names (N,), each of them once.
    names : sequence of str
        Names of the columns, each of them once.
    values : (N, columns) array
        NaN where missing.
    bases : mapping of str to str
        Of text that became indicators ``column=value``: the value of a column without one.
    families : (N,) array of str, optional
        Of the samples, where they are known: see `named_as`.

    Raises
    ------
    DuplicateSampleError, LabelError
        A sample or a column occurs twice.
    ShapeError
        The lengths differ.
    InputError
        A value is infinite.
    """

    samples: NDArray[np.str_]
    names: tuple[str, ...]
    values: Array
    bases: Mapping[str, str] = field(default_factory=dict)
    families: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        samples = np.array(self.samples, dtype=np.str_)
        names = tuple(str(name) for name in self.names)
        values = np.array(self.values, dtype=np.float64, ndmin=2)
        if values.shape != (len(samples), len(names)):
            raise ShapeError(
                f"values have shape {values.shape}; there are {len(samples)} samples and "
                f"{len(names)} columns."
            )
        _require_distinct(samples.tolist())
        if self.families is not None and len(self.families) != len(samples):
            raise ShapeError(f"{len(self.families)} families are given for {len(samples)} samples.")
        if len(set(names)) < len(names):
            first, second = first_repeat(names)
            raise LabelError(f"columns {first + 1} and {second + 1} are both {names[first]!r}.")
        if np.isinf(values).any():
            row, column = np.argwhere(np.isinf(values))[0]
            raise InputError(
                f"{names[column]!r} of sample {str(samples[row])!r} is infinite; write NA if it is "
                "missing."
            )
        values.flags.writeable = samples.flags.writeable = False
        for name, value in (("samples", samples), ("names", names), ("values", values)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.samples):,} samples x {len(self.names)})"

    def complete(self) -> "SampleTable":
        """Return the samples without missing values."""
        whole = ~np.isnan(self.values).any(axis=1)
        families = None if self.families is None else self.families[whole]
        return SampleTable(
            self.samples[whole], self.names, self.values[whole], self.bases, families
        )

    def select(self, names: Sequence[str]) -> "SampleTable":
        """Return some columns, in the order asked.

        The base of a text is known no longer where some of its indicators are left behind: samples
        without those that stay are of several values.

        Raises
        ------
        LabelError
            There is no such column.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise LabelError(
                f"there is no column {unknown[0]!r}; there are {', '.join(self.names[:10])}"
                f"{', ...' if len(self.names) > 10 else ''}."
            )
        columns = [self.names.index(name) for name in names]
        values = self.values[:, columns]
        left = [name for name in self.names if name not in names]
        bases = {
            text: base
            for text, base in self.bases.items()
            if not any(name.startswith(f"{text}=") for name in left)
        }
        return SampleTable(self.samples, tuple(names), values, bases, self.families)


def named_as(
    table: SampleTable, samples: NDArray[np.str_], families: NDArray[np.str_] | None
) -> SampleTable:
    """Return a table whose samples are called as those of the genotypes, by family and name.

    Names that repeat within a file are ``family:name`` there. Where that is so in one of two files,
    and both have families, their samples are the same if family and name are.

    Parameters
    ----------
    table : SampleTable
    samples, families : (N,) arrays of str
        Of the genotypes; families may be None.

    Returns
    -------
    SampleTable
        The same one, where names alone tell the samples of both files apart.
    """
    if table.families is None or families is None:
        return table
    ours, theirs = _pairs(table.samples, table.families), _pairs(samples, families)
    if ours is None and theirs is None:
        return table
    known = dict(zip(theirs or _joined(samples, families), samples.tolist(), strict=True))
    names = [known.get(pair, pair) for pair in ours or _joined(table.samples, table.families)]
    return SampleTable(np.array(names), table.names, table.values, table.bases, table.families)


def _pairs(names: NDArray[np.str_], families: NDArray[np.str_]) -> list[str] | None:
    """Return names that are ``family:name`` each; None where they are names alone."""
    both = zip(names.tolist(), families.tolist(), strict=True)
    return names.tolist() if all(name.startswith(f"{family}:") for name, family in both) else None


def _joined(names: NDArray[np.str_], families: NDArray[np.str_]) -> list[str]:
    both = zip(families.tolist(), names.tolist(), strict=True)
    return [f"{family}:{name}" for family, name in both]


@dataclass(frozen=True, eq=False)
class AlignedSamples:
    """Phenotypes and covariates of the samples that all tables have, in the genotypes' order.

    Attributes
    ----------
    samples : (N,) array of str
    rows : (N,) array of int
        Their numbers among the genotyped samples, ascending.
    traits : SampleTable
    covariates : SampleTable or None
        Complete.
    counts : dict of str to int
        ``n_genotyped``, ``n_phenotyped``, ``n_with_covariates`` and ``n_used``.
    dropped : dict of str to list of str
        The samples that one table has and another lacks, by what they lack.
    """

    samples: NDArray[np.str_]
    rows: NDArray[np.intp]
    traits: SampleTable
    covariates: SampleTable | None
    counts: dict[str, int]
    dropped: dict[str, list[str]] = field(repr=False)


def align(
    genotyped: ArrayLike,
    traits: SampleTable,
    covariates: SampleTable | None = None,
    *,
    covariate_missing: str = "error",
) -> AlignedSamples:
    """Bring tables together by the names of samples.

    Parameters
    ----------
    genotyped : (N,) array of str
        Names of the genotyped samples.
    traits : SampleTable
        A sample without any measured trait is left out.
    covariates : SampleTable, optional
    covariate_missing : {"error", "drop"}
        What happens to samples with a missing covariate.

    Returns
    -------
    AlignedSamples

    Raises
    ------
    LabelError
        The tables have no sample in common; the message says whether they would with a prefix or
        a suffix, family names, leading zeros, separators or case ignored, which is never done
        silently.
    MissingCovariateError
        A covariate is missing and samples are not to be dropped for that.
    """
    if covariate_missing not in ("error", "drop"):
        raise OptionError(f"covariate_missing is {covariate_missing!r}; give 'error' or 'drop'.")
    names = [str(name) for name in np.asarray(genotyped).tolist()]
    _require_distinct(names)
    measured: NDArray[np.bool_] = np.asarray(~np.isnan(traits.values).all(axis=1))
    rows_of_traits = _rows_by_name(traits, measured)
    _require_overlap("genotypes", names, "phenotypes", rows_of_traits)
    rows_of_covariates = None
    if covariates is not None:
        complete = _complete_rows(covariates, rows_of_traits, names, covariate_missing)
        rows_of_covariates = _rows_by_name(covariates, complete)
        _require_overlap("phenotypes", rows_of_traits, "covariates", rows_of_covariates)
    used = [
        number
        for number, name in enumerate(names)
        if name in rows_of_traits and (rows_of_covariates is None or name in rows_of_covariates)
    ]
    if not used:
        raise LabelError("no sample has genotypes, a trait and all covariates.")
    kept = [names[number] for number in used]
    table = None
    if covariates is not None and rows_of_covariates is not None:
        order = [rows_of_covariates[name] for name in kept]
        table = SampleTable(np.array(kept), covariates.names, covariates.values[order])
    order = [rows_of_traits[name] for name in kept]
    known = set(names)
    dropped = {
        "genotypes": [name for name in rows_of_traits if name not in known],
        "phenotypes": [name for name in names if name not in rows_of_traits],
    }
    if rows_of_covariates is not None:
        dropped["covariates"] = [
            name for name in names if name in rows_of_traits and name not in rows_of_covariates
        ]
    return AlignedSamples(
        np.array(kept, dtype=np.str_),
        np.array(used, dtype=np.intp),
        SampleTable(np.array(kept), traits.names, traits.values[order]),
        table,
        {
            "n_genotyped": len(names),
            "n_phenotyped": len(rows_of_traits),
            "n_with_covariates": len(rows_of_covariates or ()),
            "n_used": len(kept),
        },
        dropped,
    )


def independent_covariates(covariates: SampleTable) -> SampleTable:
    """Leave out constant and collinear covariates, with a warning that names them.

    See `split_covariates`.
    """
    kept, said = split_covariates(covariates)
    for text in said:
        warnings.warn(text, DataWarning, stacklevel=3)
    return kept


def split_covariates(covariates: SampleTable) -> tuple[SampleTable, list[str]]:
    """Return independent covariates, and what is to be said of those left out.

    Collinear by a QR decomposition with pivoting of the centred columns and the intercept, with a
    tolerance of ``max(N, p) eps |R_11|``.
    """
    values = covariates.values - covariates.values.mean(axis=0)
    size = np.abs(covariates.values).max(axis=0, initial=0.0)
    spread = np.sqrt((values**2).mean(axis=0))
    constant = spread <= 1e-12 * np.maximum(size, 1e-300)
    varying = np.flatnonzero(~constant)
    scaled = values[:, varying] / spread[varying]
    independent = _independent(scaled, max(values.shape) * np.finfo(float).eps)
    said = []
    for why, numbers in (
        ("constant", np.flatnonzero(constant).tolist()),
        ("a combination of the others", varying[~independent].tolist()),
    ):
        if numbers:
            names = ", ".join(repr(covariates.names[number]) for number in numbers)
            said.append(f"covariates left out, {why}: {names}.")
    kept = varying[independent].tolist()
    return covariates.select([covariates.names[i] for i in kept]), said


def _independent(columns: Array, tolerance: float) -> NDArray[np.bool_]:
    """Return which columns a QR decomposition with pivoting takes; of equally long ones the first.

    By Gram and Schmidt, on the triangle of a decomposition without pivoting: its columns have the
    same lengths and angles, and a program that needs no more than this starts without SciPy.
    """
    left = np.asarray(np.linalg.qr(columns, mode="r"))
    taken = np.zeros(columns.shape[1], dtype=bool)
    limit = 0.0
    for _ in range(len(left)):
        lengths = np.sqrt((left**2).sum(axis=0))
        longest = float(lengths.max())
        limit = limit or tolerance * longest
        if longest <= limit:
            break
        pivot = int(np.argmax(lengths > (1 - 1e-9) * longest))
        taken[pivot] = True
        unit = left[:, pivot] / lengths[pivot]
        left -= np.outer(unit, unit @ left)
        left[:, pivot] = 0.0
    return taken


def rank_normal(values: ArrayLike) -> Array:
    """Return the normal scores of ranks, column by column (Blom: ``(r - 3/8) / (n + 1/4)``).

    Ties share their average rank; missing values stay missing.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    columns = np.array(values, dtype=np.float64)
    for column in columns.reshape(len(columns), -1).T:
        seen = ~np.isnan(column)
        ranks = rankdata(column[seen])
        column[seen] = ndtri((ranks - 0.375) / (seen.sum() + 0.25))
    return columns


def _require_distinct(names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        some = ", ".join(map(repr, twice[:10]))
        more = f" and {len(twice) - 10:,} others" if len(twice) > 10 else ""
        raise DuplicateSampleError(f"more than one sample is called {some}{more}.")


def _rows_by_name(table: SampleTable, use: NDArray[np.bool_]) -> dict[str, int]:
    return {str(table.samples[row]): int(row) for row in np.flatnonzero(use)}


def _require_overlap(
    ours: str, first: Collection[str], theirs: str, second: Collection[str]
) -> None:
    for what, names in ((ours, first), (theirs, second)):
        if not names:
            raise LabelError(f"every sample of the {what} has missing values: none is left.")
    if set(first).isdisjoint(second):
        raise LabelError(no_overlap(ours, list(first), theirs, list(second)))


def _complete_rows(
    covariates: SampleTable, wanted: dict[str, int], genotyped: list[str], missing: str
) -> NDArray[np.bool_]:
    """Return which samples have all covariates; raise where one that is needed has not."""
    holes = np.isnan(covariates.values)
    complete: NDArray[np.bool_] = np.asarray(~holes.any(axis=1))
    known = set(genotyped)
    needed = np.array([name in wanted and name in known for name in covariates.samples.tolist()])
    lacking = holes[needed].sum(axis=0)
    if missing == "error" and lacking.any():
        worst = int(np.argmax(lacking))
        raise MissingCovariateError(
            f"covariate {covariates.names[worst]!r} is missing for {lacking[worst]} of "
            f"{needed.sum()} samples. Fill it in, leave it out, or drop those samples "
            "(covariate_missing='drop')."
        )
    return complete
