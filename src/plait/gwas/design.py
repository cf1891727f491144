"""The regression behind the scan: covariates and traits made ready, once for all variants."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.data.phenotypes import SampleTable, rank_normal, split_covariates
from plait.errors import ConstantTraitError, DataWarning, OptionError, TooFewSamplesError
from plait.numerics.linalg import project_positive_definite

Array = NDArray[np.float64]

EXACT_BELOW = 1e-4
"""p-value from which a mixed model estimates the variance share again beside the variant."""
TRANSFORMS = ("none", "rank", "rank-residuals")
_DECIMALS = 10
_NOTHING_LEFT = 1e-12
_FEWEST = 3
"""Samples that a regression on a constant and a variant takes."""


@dataclass(frozen=True, eq=False)
class Design:
    """Traits that were measured on the same samples.

    Attributes
    ----------
    rows : (N,) array of int
        The samples, as numbers among those of the genotypes.
    columns : (T,) array of int
        The traits, as numbers among all traits.
    basis : (N, p) array
        Orthonormal; the first column is constant, the others span the covariates.
    traits : (N, T) array
        Residuals of the traits, scaled to length 1.
    lengths : (T,) array
        Their lengths before: effects on the scale of the trait are in units of these.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.intp]
    basis: Array
    traits: Array
    lengths: Array

    @property
    def df(self) -> int:
        """Residual degrees of freedom of a variant's regression, N - p - 1."""
        return int(self.basis.shape[0] - self.basis.shape[1] - 1)

    @property
    def regressors(self) -> Array:
        """The covariates without the constant, and the traits: (N, p - 1 + T)."""
        return np.concatenate([self.basis[:, 1:], self.traits], axis=1)


def make_designs(
    traits: SampleTable,
    covariates: SampleTable | None,
    rows: NDArray[np.intp],
    transform: str = "none",
) -> list[Design]:
    """Group traits by the samples they were measured on, and project the covariates out.

    Parameters
    ----------
    traits, covariates : SampleTable
        Of the same samples; covariates are complete.
    rows : (N,) array of int
        Numbers of the samples among those of the genotypes.
    transform : {"none", "rank", "rank-residuals"}
        "rank": traits are replaced by the normal scores of their ranks; "rank-residuals": by those
        of the ranks of their residuals, from which the covariates are projected out again.

    Returns
    -------
    list of Design
        One for each pattern of missing traits, in the order in which they occur.

    Raises
    ------
    TooFewSamplesError
        Fewer samples than covariates and 2 are left for a trait.
    ConstantTraitError
        A trait does not vary once the covariates are projected out.

    Warns
    -----
    DataWarning
        Covariates are left out of the samples of some trait: they are constant or a combination of
        the others there.
    """
    if transform not in TRANSFORMS:
        raise OptionError(
            f"transform is {transform!r}; give one of {', '.join(map(repr, TRANSFORMS))}."
        )
    values = rank_normal(traits.values) if transform == "rank" else traits.values
    seen = ~np.isnan(values)
    patterns: dict[bytes, list[int]] = {}
    for column in range(values.shape[1]):
        patterns.setdefault(np.packbits(seen[:, column]).tobytes(), []).append(column)
    designs = []
    said: dict[str, None] = {}
    for group in patterns.values():
        columns = np.array(group)
        used = np.flatnonzero(seen[:, columns[0]])
        names = [traits.names[column] for column in columns]
        basis = _basis(covariates, used, names, len(rows), said)
        residuals, lengths = _residuals(values[np.ix_(used, columns)], basis, names)
        if transform == "rank-residuals":
            # Equal residuals are equal to rounding: those ties are no order.
            scores = rank_normal(np.round(residuals * len(used) ** 0.5, _DECIMALS))
            residuals, lengths = _residuals(scores, basis, names)
        designs.append(Design(rows[used], columns, basis, residuals, lengths))
    for text in said:  # once, however many patterns of missing traits there are
        warnings.warn(text, DataWarning, stacklevel=3)
    return designs


def rows_of_any(designs: Sequence[Design]) -> NDArray[np.int64]:
    """Return the samples of any trait, ascending, as numbers among those of the genotypes."""
    rows: NDArray[np.int64] = np.unique(np.concatenate([design.rows for design in designs]))
    return rows


def without(values: Array, basis: Array) -> Array:
    """Return what an orthonormal basis (N, p) of the covariates leaves of columns of N values."""
    for _ in range(2):  # twice is enough for orthogonality to rounding
        values = values - basis @ (basis.T @ values)
    return values


def residual_correlation(
    designs: Sequence[Design], residuals: Sequence[Array], n_traits: int
) -> Array:
    """Return the correlation of the errors of the effects of any two traits, (T, T).

    ``residuals`` are, for each design, those of its traits, each of length 1. Of traits on the same
    samples it is that of their residuals; with samples of their own it shrinks by
    ``n_both / sqrt(n_1 n_2)``. Where samples are unrelated it is the correlation of the scores of a
    variant without effects; for related samples see `plait.gwas.mixed.MixedModel`. Whatever values
    are missing, no eigenvalue is negative: these are products of columns that are 0 where a trait
    is missing. Where some traits tell another one, it is made positive definite.
    """
    matrix = np.eye(n_traits)
    place = np.empty(1 + max(int(design.rows.max()) for design in designs), dtype=np.intp)
    for i, first in enumerate(designs):
        place[:] = -1
        place[first.rows] = np.arange(len(first.rows))
        for k, second in enumerate(designs[: i + 1]):
            ours = place[second.rows]
            theirs = np.flatnonzero(ours >= 0)
            ours = ours[theirs]
            block = residuals[i][ours].T @ residuals[k][theirs]
            matrix[np.ix_(first.columns, second.columns)] = block
            matrix[np.ix_(second.columns, first.columns)] = block.T
    np.fill_diagonal(matrix, 1.0)
    return project_positive_definite(matrix)


def _basis(
    covariates: SampleTable | None,
    used: NDArray[np.intp],
    traits: list[str],
    n_samples: int,
    said: dict[str, None],
) -> Array:
    """Return the constant and the covariates, orthonormal; add what is to be said of the latter."""
    where = (
        f"trait {traits[0]!r} is measured on {len(used)} of the {n_samples:,} samples with "
        "genotypes, some trait and all covariates"
    )
    if len(used) < _FEWEST:
        raise TooFewSamplesError(
            f"{where}; at least {_FEWEST} are needed, and one more for each covariate."
        )
    constant = np.full((len(used), 1), len(used) ** -0.5)
    if covariates is None or not covariates.names:
        columns = constant
    else:
        part = SampleTable(covariates.samples[used], covariates.names, covariates.values[used])
        kept, left_out = split_covariates(part)
        said |= dict.fromkeys(left_out)
        columns = np.concatenate([constant, _standardised(kept.values)], axis=1)
    if len(used) < columns.shape[1] + 2:
        raise TooFewSamplesError(
            f"{where}; with {columns.shape[1] - 1} covariates and the constant at least "
            f"{columns.shape[1] + 2} are needed.{_text_advice(covariates)}"
        )
    basis = np.linalg.qr(columns)[0]
    basis[:, 0] = constant[:, 0]
    return np.asarray(basis, dtype=np.float64)


def _text_advice(covariates: SampleTable | None) -> str:
    """Name the text column that has the most values, each of which is a covariate."""
    names = () if covariates is None else covariates.names
    texts = Counter(column for column, value in (n.split("=", 1) for n in names if "=" in n))
    if not texts:
        return ""
    column, count = texts.most_common(1)[0]
    return (
        f" {count:,} of the covariates are indicators of the values of {column!r}, which is text: "
        "leave it out, by naming the covariates to take (--covariates), if it is none."
    )


def _standardised(values: Array) -> Array:
    centred = values - values.mean(axis=0)
    result: Array = centred / np.linalg.norm(centred, axis=0)
    return result


def _residuals(values: Array, basis: Array, names: list[str]) -> tuple[Array, Array]:
    # Centred and scaled first, so that a large mean cannot cancel.
    size = np.abs(values).max(axis=0)
    centred = values - values.mean(axis=0)
    spread = np.linalg.norm(centred, axis=0)
    constant = spread <= _NOTHING_LEFT * np.maximum(size * len(values) ** 0.5, 1e-300)
    scaled = centred / np.where(constant, 1.0, spread)
    scaled = without(scaled, basis)
    left = np.linalg.norm(scaled, axis=0)
    constant |= left <= 1e-7
    if constant.any():
        name = names[int(np.argmax(constant))]
        raise ConstantTraitError(
            f"trait {name!r} does not vary, or not beyond what the covariates explain, in the "
            f"{len(values)} samples that have it. Leave it out, or the covariates that tell it."
        )
    return scaled / left, spread * left
