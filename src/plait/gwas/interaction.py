"""The scan of interactions: whether the effect of a variant depends on an environment.

    trait = covariates + E + a g + b (g E) + error

E is any measured quantity: a temperature, a treatment of 0 and 1, sex, age. ``b`` is how much the
effect of one copy changes with one unit of E, and ``a`` the effect where E is 0; from both, with
their covariance, follows the effect in any environment. Covariates that matter in interaction (age,
when E is a treatment that the old get) are the caller's to add, as columns multiplied by E.

Where the variance of the trait changes with E, or its mean does so on no straight line, the
ordinary test of b finds too much; ``robust=True`` uses errors that hold then, too (HC3).
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.genotype_blocks import GenotypeBlock, padded, read_block
from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable, align
from plait.errors import InputError, LabelError, OptionError, TooFewSamplesError
from plait.execution.executors import refuse_forks, workforce
from plait.execution.progress import stage
from plait.gwas.design import Design, make_designs
from plait.gwas.model import variant_columns
from plait.gwas.passes import scan_blocks
from plait.gwas.quality import VariantFilter
from plait.gwas.results import VARIANT_COLUMNS
from plait.io.result import Result
from plait.numerics.student import log10_p_value
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

_KINDS = ("main", "interaction")
EFFECTS = tuple(f"{name}_{kind}" for kind in _KINDS for name in ("beta", "se", "log10p"))
"""Names of what is estimated for each variant and trait."""
_VALUES = (*EFFECTS, "covariance", "log10p_joint")


@dataclass(frozen=True, eq=False, repr=False)
class InteractionResult(Result):
    """Effects of M variants on T traits, and how they change with an environment.

    Attributes
    ----------
    beta_main, se_main, log10p_main : (M, T) arrays
        Effect of one copy of the effect allele where the environment is 0, its standard error, and
        log10 of its two-sided p-value. NaN where a variant was not tested.
    beta_interaction, se_interaction, log10p_interaction : (M, T) arrays
        Change of that effect with one unit of the environment.
    covariance : (M, T) array
        Of the errors of the two.
    log10p_joint : (M, T) array
        log10 of the p-value of no effect in any environment (2 degrees of freedom).
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`.
    traits : tuple of str
    environment : str
    robust : bool
        Whether errors hold with unequal variances (HC3).
    filtered : dict of str to int
        How many tests each rule left out.
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "interaction"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys((*_VALUES, "n"), ("variants", "traits")),
        **dict.fromkeys(("frequency", *VARIANT_COLUMNS), ("variants",)),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("variants", "traits")

    beta_main: Array
    se_main: Array
    log10p_main: Array
    beta_interaction: Array
    se_interaction: Array
    log10p_interaction: Array
    covariance: Array
    log10p_joint: Array
    n: NDArray[np.int64]
    frequency: Array
    chrom: NDArray[np.str_]
    pos: NDArray[np.int64]
    id: NDArray[np.str_]
    oa: NDArray[np.str_]
    ea: NDArray[np.str_]
    traits: tuple[str, ...]
    environment: str
    robust: bool = False
    filtered: dict[str, int] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __repr__(self) -> str:
        return (
            f"InteractionResult({len(self.beta_main):,} variants x {len(self.traits)} traits, "
            f"environment {self.environment!r})"
        )

    @cached_property
    def variants(self) -> NDArray[np.str_]:
        """Keys ``chrom:pos:oa:ea`` of the variants."""
        columns = (self.chrom.tolist(), self.pos.tolist(), self.oa.tolist(), self.ea.tolist())
        parts = zip(*columns, strict=True)
        return np.array([":".join(map(str, part)) for part in parts], dtype=np.str_)

    def effects_at(self, environments: ArrayLike) -> tuple[Array, Array]:
        """Return effects where the environment has given values.

        Parameters
        ----------
        environments : (R,) array

        Returns
        -------
        beta : (M, T, R) array
        covariance : (M, T, R, R) array
            Of their errors, of rank 2: the R effects lie on one line.
        """
        e = np.atleast_1d(np.asarray(environments, dtype=np.float64))
        names = ("beta_main", "beta_interaction", "se_main", "se_interaction", "covariance")
        at_0, change, error_at_0, error_of_change, covariance = (
            np.asarray(getattr(self, name))[..., None] for name in names
        )
        beta = at_0 + change * e
        main, slope = error_at_0[..., None] ** 2, error_of_change[..., None] ** 2
        both = covariance[..., None] * (e[:, None] + e)
        return beta, np.asarray(main + both + slope * np.outer(e, e))

    def summary(self) -> str:
        """Say in a few lines what was tested and found."""
        lines = [repr(self) + (", robust errors" if self.robust else "")]
        if self.filtered:
            left_out = ", ".join(f"{name} {count:,}" for name, count in self.filtered.items())
            lines.append(f"  tests left out: {left_out}")
        for number, trait in enumerate(self.traits):
            column = self.log10p_interaction[:, number]
            found = int((column < math.log10(5e-8)).sum())
            line = f"  {trait}: {found:,} interactions at p < 5e-8"
            if np.isfinite(column).any():
                best = int(np.nanargmin(column))
                line += f", surest {self.id[best]} ({self.chrom[best]}:{self.pos[best]})"
                line += f" log10 p {column[best]:.1f}"
            lines.append(line)
        return "\n".join(lines)

    def to_table(self) -> "DataFrame":
        """Return one row per variant, with ``beta_interaction.<trait>`` and so on."""
        import polars as pl

        columns: dict[str, Any] = {name: getattr(self, name) for name in VARIANT_COLUMNS}
        columns["eaf"] = self.frequency
        for number, trait in enumerate(self.traits):
            for name in (*_VALUES, "n"):
                columns[f"{name}.{trait}"] = getattr(self, name)[:, number]
        return pl.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Statistics of consecutive variants; names and shapes as in `InteractionResult`."""

    values: dict[str, Array]
    n: NDArray[np.int64]
    frequency: Array
    filtered: dict[str, int]


def scan_interaction(
    genotypes: GenotypeSource,
    traits: SampleTable,
    environment: SampleTable,
    covariates: SampleTable | None = None,
    *,
    robust: bool = False,
    transform: str = "none",
    variant_filter: VariantFilter | None = None,
    covariate_missing: str = "error",
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> InteractionResult:
    """Test for every variant and trait whether the effect changes with an environment.

    Parameters
    ----------
    genotypes : GenotypeSource
    traits : SampleTable
    environment : SampleTable
        One column. It need not be centred: that changes where the main effect is read off, not the
        interaction.
    covariates : SampleTable, optional
        The environment itself is always one; it may be among them.
    robust : bool
        Standard errors that hold where the variance differs among samples (HC3; MacKinnon and
        White 1985, Journal of Econometrics 29). About ten times slower.
    transform, variant_filter, covariate_missing, executor, memory, threads
        As in `plait.gwas.scan`; ``covariate_missing`` is also for the environment.

    Returns
    -------
    InteractionResult

    Raises
    ------
    OptionError
        There is not exactly one environment.
    InputError
        It does not vary.
    LabelError, MissingCovariateError, TooFewSamplesError, ConstantTraitError
        As in `plait.gwas.scan`.

    Notes
    -----
    Student's test with N - p - 2 degrees of freedom, p counting the constant, the covariates and
    the environment; F with 2 for both effects. Robust: with Bell and McCaffrey's (2002) degrees of
    freedom, which are few where carriers are few; without them HC3 finds 20 times too many p below
    0.001 at 30 copies of an allele. A missing genotype is the mean of its variant.
    Cost 4 N M (p + T + 1) flops in double precision; robust N M (p + T) more, out of BLAS.
    """
    started = time.perf_counter()
    if len(environment.names) != 1:
        raise OptionError(
            f"one environment is tested at a time; there are {len(environment.names)} columns. "
            "Use environment.select([name]), and the others as covariates."
        )
    name = environment.names[0]
    joined = _joined(covariates, environment)
    samples = align(genotypes.samples, traits, joined, covariate_missing=covariate_missing)
    assert samples.covariates is not None
    values = samples.covariates.values[:, samples.covariates.names.index(name)]
    for trait, column in zip(samples.traits.names, samples.traits.values.T, strict=True):
        used = ~np.isnan(column)
        _check(name, values[used], trait, int(used.sum()) - len(samples.covariates.names) - 3)
    designs = make_designs(samples.traits, samples.covariates, samples.rows, transform)
    environments = [values[np.searchsorted(samples.rows, design.rows)] for design in designs]
    rules = VariantFilter() if variant_filter is None else variant_filter
    refuse_forks(executor)
    force = workforce(executor, memory, threads)
    n_variants, n_traits = genotypes.n_variants, len(samples.traits.names)
    work = InteractionScan(genotypes, designs, environments, n_traits, robust, rules)
    arrays: dict[str, Any] = {key: np.full((n_variants, n_traits), np.nan) for key in _VALUES}
    arrays["n"] = np.zeros((n_variants, n_traits), dtype=np.int64)
    arrays["frequency"] = np.full(n_variants, np.nan)
    filtered: dict[str, int] = {}
    with stage("scan", n_variants) as advance:
        for block, found in scan_blocks(work, genotypes, slice(0, n_variants), force):
            for key, value in found.values.items():
                arrays[key][block.rows] = value
            arrays["n"][block.rows] = found.n
            arrays["frequency"][block.rows] = found.frequency
            for key, count in found.filtered.items():
                filtered[key] = filtered.get(key, 0) + count
            advance(len(block))
    options = {
        "environment": name,
        "robust": robust,
        "transform": transform,
        "covariates": samples.covariates.names,
        **asdict(rules),
        **samples.counts,
    }
    seconds, used = time.perf_counter() - started, force.workers * force.threads
    return InteractionResult(
        **arrays,
        **variant_columns(genotypes),
        traits=samples.traits.names,
        environment=name,
        robust=robust,
        filtered={key: count for key, count in filtered.items() if count},
        provenance=Provenance("gwas interaction", options, seconds=seconds, threads=used),
    )


class InteractionScan:
    """The interaction scan of some designs, whose covariates span the environment.

    Parameters
    ----------
    source : GenotypeSource
    designs : list of Design
    environments : list of (N,) arrays
        The environment of the samples of each design.
    n_traits : int
    robust : bool
    rules : VariantFilter
    """

    def __init__(
        self,
        source: GenotypeSource,
        designs: list[Design],
        environments: list[Array],
        n_traits: int,
        robust: bool = False,
        rules: VariantFilter | None = None,
    ) -> None:
        self.source, self.n_traits = source, n_traits
        rules = VariantFilter() if rules is None else rules
        self.groups = [
            _Group(design, environment, robust, rules)
            for design, environment in zip(designs, environments, strict=True)
        ]

    def run(self, rows: slice) -> Interactions:
        """Return the statistics of some variants, whatever the cut the same bits."""
        n = rows.stop - rows.start
        block = read_block(self.source, rows)
        values = {name: np.full((n, self.n_traits), np.nan) for name in _VALUES}
        counts = np.zeros((n, self.n_traits), dtype=np.int64)
        filtered: dict[str, int] = {}
        for group in self.groups:
            found, left_out = group.run(block)
            columns = group.design.columns
            for name, array in found.items():
                values[name][:, columns] = array
            counts[:, columns] = len(group.design.rows)
            for name, count in left_out.items():
                filtered[name] = filtered.get(name, 0) + count * len(columns)
        return Interactions(values, counts, block.calls.frequency, filtered)


class _Group:
    """The traits of one design."""

    def __init__(
        self, design: Design, environment: Array, robust: bool, rules: VariantFilter
    ) -> None:
        self.design, self.robust, self.rules = design, robust, rules
        # Centred and scaled, so that g and g E are as different as they can be.
        self.centre, self.scale = float(environment.mean()), float(environment.std())
        self.environment = (environment - self.centre) / self.scale
        plain = np.concatenate([design.basis, design.traits], axis=1)
        n_samples = len(environment)
        e = self.environment[:, None]
        powers = np.concatenate([np.ones((n_samples, 1)), e, e * e], axis=1)
        self.regressors = padded(np.concatenate([plain, plain * e], axis=1), np.float64)
        self.powers = padded(powers, np.float64)

    def run(self, block: GenotypeBlock) -> tuple[dict[str, Array], dict[str, int]]:
        from plait.gwas.kernels import interaction_statistics, robust_covariances

        design, n = self.design, len(block)
        block = block.of_samples(design.rows)
        p, n_traits = design.basis.shape[1], design.traits.shape[1]
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        df = float(design.df - 1)
        slopes = np.full((n, n_traits, 2), np.nan)
        covariances = np.full((n, n_traits, 3), np.nan)
        joint = np.full((n, n_traits), np.nan)
        freedom = np.full((n, 2), df)
        for part, tile, used in block.tiles(np.float64):
            products = (tile @ self.regressors)[used]
            squares = (tile**2 @ self.powers)[used]
            outputs = slopes[part], covariances[part], joint[part]
            interaction_statistics(products, squares, p, df, *outputs)
            outputs[0][gone[part]] = np.nan
            if self.robust:
                known = self.environment, design.basis, design.traits, products, squares
                shift = self.centre / self.scale
                robust_covariances(tile[used], *known, shift, *outputs, freedom[part])
        for array in (covariances, joint):
            array[gone] = np.nan
        untested = ~gone & np.isnan(slopes[:, 0, 0])
        filtered = {name: int(flags.sum()) for name, flags in removed.items()}
        filtered["explained by covariates or main effect"] = int(untested.sum())
        return self._in_units(slopes, covariances, joint, freedom), filtered

    def _in_units(self, slopes: Array, covariances: Array, joint: Array, df: Array) -> Any:
        """Return effects in the units of trait and environment, the main one where that is 0."""
        lengths, shift = self.design.lengths, self.centre / self.scale
        at_mean, slope = slopes[..., 0], slopes[..., 1]
        v_mean, v_both, v_slope = np.moveaxis(covariances, -1, 0)
        main = at_mean - shift * slope
        v_main = v_mean - 2.0 * shift * v_both + shift**2 * v_slope
        # The two parts may cancel to rounding, never below 0.
        se_main, se_slope = np.sqrt(np.maximum(v_main, 0.0)), np.sqrt(v_slope)
        with np.errstate(divide="ignore", invalid="ignore"):
            log10p = [
                log10_p_value(b / s, df[:, [k]])
                for k, (b, s) in enumerate(((main, se_main), (slope, se_slope)))
            ]
        return {
            "beta_main": main * lengths,
            "se_main": se_main * lengths,
            "log10p_main": log10p[0],
            "beta_interaction": slope * lengths / self.scale,
            "se_interaction": se_slope * lengths / self.scale,
            "log10p_interaction": log10p[1],
            "covariance": (v_both - shift * v_slope) * lengths**2 / self.scale,
            "log10p_joint": joint,
        }


def _joined(covariates: SampleTable | None, environment: SampleTable) -> SampleTable:
    """Return covariates and environment as one table of the samples that both have."""
    name = environment.names[0]
    if covariates is None:
        return environment
    others = covariates.select([other for other in covariates.names if other != name])
    place = {sample: number for number, sample in enumerate(environment.samples.tolist())}
    rows = [row for row, sample in enumerate(others.samples.tolist()) if sample in place]
    if not rows:
        raise LabelError(
            "covariates and environment have no sample in common: they begin "
            f"{others.samples[0]!r} and {environment.samples[0]!r}."
        )
    theirs = [place[sample] for sample in others.samples[rows].tolist()]
    values = np.concatenate([others.values[rows], environment.values[theirs]], axis=1)
    return SampleTable(others.samples[rows], (*others.names, name), values)


def _check(name: str, environment: Array, trait: str, df: int) -> None:
    if environment.std() <= 1e-12 * np.abs(environment).max(initial=0.0):
        raise InputError(
            f"environment {name!r} is the same for all {len(environment)} samples with trait "
            f"{trait!r}, so that nothing can depend on it."
        )
    if df < 1:
        raise TooFewSamplesError(
            f"trait {trait!r} is measured on {len(environment)} samples, too few for an "
            "interaction beside the covariates."
        )
