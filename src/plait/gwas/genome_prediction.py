"""Predictions of traits from genotypes, out of fold: two levels of ridge regression.

The first level regresses traits on blocks of variants, the second on the predictions of the blocks
(see `plait.gwas.whole_genome`). Samples are in folds; nothing that predicts a sample has seen its
fold.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import TILE, GenotypeBlock, read_block
from plait.data.genotypes import GenotypeSource
from plait.errors import CapacityError, TooFewSamplesError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks
from plait.execution.progress import stage
from plait.execution.threads import single_threaded_blas
from plait.gwas.design import Design, rows_of_any
from plait.gwas.quality import VariantFilter
from plait.io.stored_arrays import Layout, StoredArray, lay_out, write_rows
from plait.numerics.ridge import StackedProducts, ridge_in_folds

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

FOLDS = 5
SHARES = np.array([0.01, 0.25, 0.5, 0.75, 0.99])
"""Shares of variance that predictors may explain; a penalty for each."""
BLOCK = 1000
"""Variants of a block."""
_PREDICTORS = VariantFilter(min_minor_count=None, min_frequency=0.01)
_SPAN = 8192
_MEMORY_SHARE = 2
"""Predictions of blocks stay in memory where this many times their bytes fit."""
_TILE = 50
"""Blocks whose predictions are multiplied together."""
_COPIES = 10
"""Matrices of the products of predictors, or of predictions, that a worker has at a time."""
_EXPLAINED = 1e-4
"""Share of a genotype's variation that covariates must leave for it to predict."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of the traits of a design.

    Attributes
    ----------
    predictions : (1 + chromosomes, N, T) array
        From all chromosomes, then from all but one, in units of the traits of the design.
    explained : (T,) array
        Share of the variance that is predicted from all chromosomes; 0 where the mean is better.
    shares : (T,) array
        The one of `SHARES` behind the penalty of the second level.
    """

    predictions: NDArray[Any]
    explained: Array
    shares: Array


@dataclass(frozen=True, eq=False)
class PredictorBlock:
    """Consecutive predictors of one chromosome: numbers of variants, ascending."""

    chromosome: str
    variants: Indices

    @property
    def pieces(self) -> list[Indices]:
        """The predictors that are read together.

        Gaps wider than `TILE`, as where the variants of a chromosome lie apart, are not read.
        """
        return np.split(self.variants, np.flatnonzero(np.diff(self.variants) > TILE) + 1)


def predictor_blocks(
    genotypes: GenotypeSource, designs: Sequence[Design], force: Workforce
) -> list[PredictorBlock]:
    """Choose the predictors, counted among the samples of any design, and cut them into blocks.

    Blocks are of the variants of a chromosome wherever these lie: what is between does not matter.
    """
    rows = rows_of_any(designs)

    def chosen(part: Block) -> Indices:
        block = read_block(genotypes, part.rows).of_samples(rows)
        removed = list(_PREDICTORS.removed(block.calls).values())
        return part.start + np.flatnonzero(~np.logical_or.reduce(removed) & (block.squares > 0))

    found: dict[str, list[Indices]] = {}
    for name, run in genotypes.variants.chromosomes:
        parts = plan_blocks(run.stop - run.start, genotypes.block_size())
        work = [Block(run.start + part.start, run.start + part.stop) for part in parts]
        used = [numbers for _, numbers in run_blocks(chosen, work, force, "predictors")]
        found.setdefault(name, []).extend(used)
    blocks = []
    for name, numbers in found.items():
        kept = np.concatenate(numbers)
        # As even as can be: a last block of a few variants would be a predictor of its own.
        count = -(-len(kept) // BLOCK)
        blocks += [PredictorBlock(name, part) for part in np.array_split(kept, count or 1)]
    return [block for block in blocks if len(block.variants)]


def predict_out_of_fold(
    genotypes: GenotypeSource,
    designs: Sequence[Design],
    blocks: Sequence[PredictorBlock],
    dtype: np.dtype[Any],
    seed: int,
    force: Workforce,
    folder: str | os.PathLike[str] | None,
) -> list[OutOfFold]:
    """Predict the traits of all designs.

    Parameters
    ----------
    genotypes : GenotypeSource
    designs : sequence of Design
    blocks : sequence of PredictorBlock
    dtype : float32 or float64
        Of products with genotypes, and of predictions.
    seed : int
        Of the folds.
    force : Workforce
    folder : str or path, optional
        Where predictions of blocks go that have no room in memory.

    Raises
    ------
    TooFewSamplesError, CapacityError
        See `plait.gwas.whole_genome.WholeGenomeModel`.
    """
    names = list(dict.fromkeys(block.chromosome for block in blocks))
    chromosomes = np.array([names.index(block.chromosome) for block in blocks])
    parts = [FoldedDesign(design, genotypes.n_samples, seed, dtype) for design in designs]
    found = []
    with (
        single_threaded_blas(),
        StoredPredictions(parts, len(blocks), dtype, force, folder) as predictions,
    ):
        products = _first_level(genotypes, parts, blocks, predictions, force)
        for d, part in enumerate(parts):
            made = np.zeros((1 + len(names), *part.design.traits.shape), dtype)
            fits = []
            for t in range(made.shape[2]):
                own = predictions.of(d, t)
                fit = _second_level(part, t, own, products[d], chromosomes, predictions.held, force)
                _add_predictions(part, fit.coefficients, own, made[..., t])
                fits.append((fit.explained, fit.share))
            explained, shares = np.array(fits).T
            found.append(OutOfFold(made, explained, shares))
    return found


class FoldedDesign:
    """A design with its samples in the order of their folds; traits have variance 1."""

    def __init__(self, design: Design, n_samples: int, seed: int, dtype: np.dtype[Any]) -> None:
        n, p = design.basis.shape
        if n < 2 * FOLDS:
            raise TooFewSamplesError(
                f"a trait is measured on {n} genotyped samples; {FOLDS} folds to predict in need "
                f"at least {2 * FOLDS}. Leave it out, or use model='linear'."
            )
        self.design, self.dtype = design, dtype
        # A draw for every genotyped sample: it does not matter which others have the trait.
        place = np.random.default_rng(np.random.SeedSequence(seed)).permutation(n_samples)
        fold = np.empty(n, dtype=np.intp)
        fold[np.argsort(place[design.rows])] = np.arange(n) % FOLDS
        self.order = np.argsort(fold, kind="stable")
        self.rows = design.rows[self.order]
        self.counts = np.bincount(fold, minlength=FOLDS)
        stops = np.cumsum(self.counts).tolist()
        self.folds = [slice(a, b) for a, b in zip([0, *stops[:-1]], stops, strict=True)]
        self.unit = (n - p) ** 0.5
        self.basis, self.traits = design.basis[self.order], self.unit * design.traits[self.order]
        self.regressors = np.hstack([self.basis, self.traits]).astype(dtype)


class FoldedGenotypes:
    """Centred genotypes (variants, samples by fold) of some predictors, for a design.

    ``pieces`` are blocks, and the numbers of their variants that are predictors.
    """

    def __init__(self, pieces: Sequence[tuple[GenotypeBlock, Indices]], part: FoldedDesign) -> None:
        self.part, filled = part, 0
        count = sum(len(kept) for _, kept in pieces)
        self.values = np.empty((count, len(part.rows)), dtype=part.dtype)
        for block, kept in pieces:
            own = block.of_samples(part.rows)
            for variants, tile, used in own.tiles(part.dtype):
                first, last = np.searchsorted(kept, [variants.start, variants.stop])
                rows = kept[first:last] - variants.start
                chosen = slice(filled + first, filled + last)
                self.values[chosen] = tile[used][rows, : own.n_samples]
            filled += len(kept)

    def products(self) -> tuple[Array, Array, Array, Array]:
        """Return sums of products in each fold, of genotypes without covariates, of variance 1.

        Returns
        -------
        (K, B, B), (K, B, T), (B,) and (B, p) arrays
            Among genotypes, with the traits; then what genotypes were multiplied by, and their
            products with the covariates before.
        """
        part, n, p = self.part, len(self.values), self.part.design.basis.shape[1]
        grams, products = np.zeros((FOLDS, n, n)), np.zeros((FOLDS, n, part.regressors.shape[1]))
        for k, fold in enumerate(part.folds):
            for span in _spans(fold):
                some = self.values[:, span]
                grams[k] += some @ some.T
                products[k] += some @ part.regressors[span]
        along, crosses = products[:, :, :p].sum(axis=0), products[:, :, p:]
        squares = np.einsum("kjj->j", grams)
        for k, fold in enumerate(part.folds):
            basis, mixed = part.basis[fold], products[k, :, :p] @ along.T
            grams[k] += along @ (basis.T @ basis) @ along.T - mixed - mixed.T
            crosses[k] -= along @ (basis.T @ part.traits[fold])
        left = np.einsum("kjj->j", grams)
        scale, varies = np.zeros(n), left > _EXPLAINED * squares
        scale[varies] = part.unit / np.sqrt(left[varies])
        grams *= np.outer(scale, scale)
        crosses *= scale[:, None]
        return grams, crosses, scale, along

    def predictions(self, coefficients: Array, scale: Array, along: Array) -> NDArray[Any]:
        """Return predictions (T, R, N) from coefficients (K, R, B, T) for each fold."""
        part, n_traits, n_penalties = self.part, coefficients.shape[3], coefficients.shape[1]
        found = np.empty((n_traits * n_penalties, self.values.shape[1]), dtype=part.dtype)
        for k, fold in enumerate(part.folds):
            flat = (coefficients[k] * scale[:, None]).transpose(2, 0, 1).reshape(-1, len(scale))
            found[:, fold] = flat.astype(part.dtype) @ self.values[:, fold]
            found[:, fold] -= (flat @ along @ part.basis[fold].T).astype(part.dtype)
        return found.reshape(n_traits, n_penalties, -1)


class StoredPredictions:
    """Predictions of blocks (blocks x shares, samples by fold), in memory or in a store.

    There is an array for each trait of each design; it is gone when the model is fitted. ``held``
    are the bytes in memory.
    """

    def __init__(
        self,
        parts: Sequence[FoldedDesign],
        n_blocks: int,
        dtype: np.dtype[Any],
        force: Workforce,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        height = len(SHARES) * n_blocks
        shapes = {
            f"{d}-{t}": (height, int(part.counts.sum()))
            for d, part in enumerate(parts)
            for t in range(len(part.design.columns))
        }
        size = sum(dtype.itemsize * rows * columns for rows, columns in shapes.values())
        self.folder: str | None = None
        self.held = size
        self.arrays: Mapping[str, Any]
        if _MEMORY_SHARE * size <= force.memory:
            self.arrays = {name: np.empty(shape, dtype) for name, shape in shapes.items()}
            return
        self.held = 0
        self.folder = tempfile.mkdtemp(prefix="plait-predictions-", dir=folder)
        layouts = {
            name: Layout(("predictions", "samples"), shape, dtype.name)
            for name, shape in shapes.items()
        }
        lay_out(self.folder, layouts, len(SHARES))
        self.arrays = {name: StoredArray(self.folder, name) for name in shapes}

    def __enter__(self) -> "StoredPredictions":
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)

    def of(self, d: int, t: int) -> Any:
        """Return the predictions of a trait of a design, to be read by rows."""
        return self.arrays[f"{d}-{t}"]

    def put(self, number: int, d: int, values: NDArray[Any]) -> None:
        """Keep the predictions (traits, shares, samples) of a block."""
        rows = slice(number * len(SHARES), (number + 1) * len(SHARES))
        named = {f"{d}-{t}": trait for t, trait in enumerate(values)}
        if self.folder is not None:
            write_rows(self.folder, rows, named)
            return
        for name, trait in named.items():
            self.arrays[name][rows] = trait


def _first_level(
    genotypes: GenotypeSource,
    parts: Sequence[FoldedDesign],
    blocks: Sequence[PredictorBlock],
    predictions: StoredPredictions,
    force: Workforce,
) -> list[Array]:
    """Fit ridge regressions on every block, and keep their predictions.

    Returns, for each design, ``held_out``, ``nested`` and ``nested_squares`` of `FoldedRidge`, as
    (3, K, blocks x shares, T).
    """
    n_predictors = sum(len(block.variants) for block in blocks)
    penalties = n_predictors * (1 - SHARES) / SHARES

    def one(number: Block) -> list[Array]:
        block, sums = blocks[number.start], []
        everyone = [
            (read_block(genotypes, slice(int(piece[0]), int(piece[-1]) + 1)), piece - piece[0])
            for piece in block.pieces
        ]
        for d, part in enumerate(parts):
            made, products = fitted(everyone, part)
            predictions.put(number.start, d, made)
            sums.append(products)
        return sums

    def fitted(
        everyone: list[tuple[GenotypeBlock, Indices]], part: FoldedDesign
    ) -> tuple[NDArray[Any], Array]:
        folded = FoldedGenotypes(everyone, part)
        grams, crosses, scale, along = folded.products()
        fit = ridge_in_folds(grams, crosses, penalties)
        made = folded.predictions(fit.coefficients, scale, along)
        return made, np.array([fit.held_out, fit.nested, fit.nested_squares])

    largest = max(len(block.variants) for block in blocks)
    widest = max(sum(int(np.ptp(p)) + 1 for p in block.pieces) for block in blocks)
    each = max(_block_bytes(part, genotypes, largest, widest) for part in parts)
    force = _with_room(force, predictions.held, each, f"{largest:,} variants")
    found: list[list[Array]] = []
    with stage("whole-genome regression", n_predictors) as advance:
        work = [Block(number, number + 1) for number in range(len(blocks))]
        for number, sums in run_blocks(one, work, force, "whole-genome regression"):
            found.append(sums)
            advance(len(blocks[number.start].variants))
    return [np.concatenate([sums[d] for sums in found], axis=2) for d in range(len(parts))]


def _block_bytes(part: FoldedDesign, genotypes: GenotypeSource, largest: int, widest: int) -> int:
    """Return the memory that a block of predictors takes while it is worked on."""
    read = widest * genotypes.n_samples * (8 if genotypes.kind == "dosage" else 1)
    per_sample = part.dtype.itemsize * (largest + 3 * len(SHARES) * part.traits.shape[1])
    return int(read + len(part.rows) * per_sample + 8 * _COPIES * largest**2)


def _with_room(force: Workforce, held: int, each: int, what: str) -> Workforce:
    """Return as many workers as have room beside what is held."""
    if held + each > force.memory:
        raise CapacityError(
            f"whole-genome regression with {what} at a time takes {(held + each) / 2**30:.2f} GiB "
            f"and memory is {force.memory / 2**30:.2f} GiB: raise --memory (memory=), or predict "
            "from fewer variants."
        )
    return replace(force, workers=min(force.workers, (force.memory - held) // each))


@dataclass(frozen=True, eq=False)
class _Stacked:
    """The second level of a trait, and how well it does.

    ``coefficients`` (1 + chromosomes, K, P) are those of the fit to predictions from all
    chromosomes, then of those to predictions from all but one.
    """

    coefficients: Array
    share: float
    explained: float


def _second_level(
    part: FoldedDesign,
    t: int,
    predictions: Any,
    products: Array,
    chromosomes: Indices,
    held: int,
    force: Workforce,
) -> _Stacked:
    """Fit the second level of a trait in folds; its penalty is the best out of fold.

    Without a chromosome it is fitted again, with the same penalty.

    Notes
    -----
    Where the mean predicts better, all blocks get the same weights, and the best of these fits is
    taken whether or not it beats the mean. Populations that differ a little in a trait are followed
    by a fit, but its errors outweigh that; without it tests find them on every chromosome. The sum
    of all blocks follows them with five coefficients that are nearly one, and where there is
    nothing to predict takes few of the N degrees of freedom from the tests.
    """
    height = products.shape[2]
    held += 8 * (FOLDS + 1) * height**2
    force = _with_room(force, held, 8 * _COPIES * height**2, f"{height:,} predictions")
    kinds = np.tile(np.arange(len(SHARES)), height // len(SHARES))
    grams = _fold_grams(part, predictions, force)
    held_out, nested, nested_squares = products[..., t]
    stacked = StackedProducts(grams, held_out, nested, nested_squares, part.counts, kinds)
    squares = [float(part.traits[fold, t] @ part.traits[fold, t]) for fold in part.folds]

    def out_of_fold(alike: bool) -> tuple[Array, Array]:
        def one(fold: Block) -> tuple[Array, Array]:
            b = stacked.coefficients(fold.start, SHARES, alike=alike)
            return b, stacked.squared_errors(fold.start, b, squares[fold.start])

        folds = [Block(k, k + 1) for k in range(FOLDS)]
        fits = [fit for _, fit in run_blocks(one, folds, force, "second level")]
        errors = np.sum([errors for _, errors in fits], axis=0)
        return np.array([b for b, _ in fits]), 1 - errors / sum(squares)

    alike = False
    found, explained = out_of_fold(alike)
    if explained.max() <= 0:
        alike = True
        found, explained = out_of_fold(alike)
    best = int(np.argmax(explained))
    count = int(chromosomes.max()) + 1
    coefficients = np.zeros((1 + count, FOLDS, height))
    coefficients[0] = found[:, best]
    place = np.repeat(chromosomes, len(SHARES))

    def again(number: Block) -> Array:
        k, chromosome = divmod(number.start, count)
        b: Array = stacked.coefficients(k, SHARES[[best]], place != chromosome, alike)[0]
        return b

    work = [Block(number, number + 1) for number in range(FOLDS * count)]
    for number, b in run_blocks(again, work, force, "second level without a chromosome"):
        k, chromosome = divmod(number.start, count)
        coefficients[1 + chromosome, k] = b
    return _Stacked(coefficients, float(SHARES[best]), max(float(explained[best]), 0.0))


def _fold_grams(part: FoldedDesign, predictions: Any, force: Workforce) -> Array:
    """Return ``W_k^T W_k`` (K, P, P) of predictions (P, samples by fold)."""
    height = predictions.shape[0]
    step = _TILE * len(SHARES)
    tiles = [slice(a, min(a + step, height)) for a in range(0, height, step)]
    pairs = [(i, j) for i in range(len(tiles)) for j in range(i + 1)]
    grams = np.empty((FOLDS, height, height))

    def one(number: Block) -> Array:
        i, j = pairs[number.start]
        first = predictions[tiles[i]]
        second = first if i == j else predictions[tiles[j]]
        out = np.zeros((FOLDS, len(first), len(second)))
        for k, fold in enumerate(part.folds):
            for span in _spans(fold):
                out[k] += first[:, span] @ second[:, span].T
        return out

    work = [Block(number, number + 1) for number in range(len(pairs))]
    for number, found in run_blocks(one, work, force, "products of predictions"):
        i, j = pairs[number.start]
        grams[:, tiles[i], tiles[j]] = found
        grams[:, tiles[j], tiles[i]] = found.transpose(0, 2, 1)
    return grams


def _add_predictions(
    part: FoldedDesign, coefficients: Array, predictions: Any, out: NDArray[Any]
) -> None:
    """Fill ``out`` (fits, N) with predictions in units of the traits of the design."""
    for start in range(0, predictions.shape[0], len(SHARES)):
        rows = slice(start, start + len(SHARES))
        block = predictions[rows]
        for k, fold in enumerate(part.folds):
            out[:, part.order[fold]] += coefficients[:, k, rows] @ block[:, fold] / part.unit


def _spans(fold: slice) -> Iterator[slice]:
    """Cut the samples of a fold: sums over more are added in double precision."""
    for start in range(fold.start, fold.stop, _SPAN):
        yield slice(start, min(start + _SPAN, fold.stop))
