"""Which fold changes a gene-level screen can find: its power, and the smallest ones."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import real_number
from plait.crt.gene_problem import FittedPair
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_tests import BlockOfPairs
from plait.crt.pair_tests import CellProblem, PairedUnits
from plait.crt.screen_parameters import ScreenParameters
from plait.data.words import counted
from plait.errors import InputTypeError, NotAvailableError, OptionError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks
from plait.execution.progress import stage
from plait.io.result import Result
from plait.provenance import Provenance

if TYPE_CHECKING:
    from plait.crt.power_kernels import Groups
    from plait.crt.power_kernels import Pair as PreparedPair

Array = NDArray[np.float64]

_GROUPS = 12
"""Of treated cells, and of others, that are taken together; twice as many change power by 0.005."""
_SIGNS = {"both": 0, "left": -1, "right": 1}


@dataclass(frozen=True, eq=False, repr=False)
class DetectableEffects(Result):
    """What fold changes of P pairs of a target and a gene a screen can find.

    Attributes
    ----------
    response_id, grna_target : (P,) arrays of str
    grna_id : (P,) array of str or None
        The guide, where guides are tested one by one.
    n_treated : (P,) int array
        Treated cells.
    expected_count : (P,) array
        Mean count of the gene in treated cells as the covariates let expect it.
    theta : (P,) array
        Size of the negative binomial.
    log_2_decrease, log_2_increase : (P,) arrays or None
        The smallest log2 fold changes that are found with the wanted power; None for a side that is
        not tested, NaN where there is none (even the loss of all counts is not found) or no test.
    power_at : (P, F) array
        Power at given fold changes.
    fold_changes : (F,) tuple of str
    power : float
        The power that is wanted.
    p_threshold : float
        Pairs with p-values up to this are found.
    settings : dict
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "crt-detectable"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        (
            "response_id",
            "grna_id",
            "grna_target",
            "n_treated",
            "expected_count",
            "theta",
            "log_2_decrease",
            "log_2_increase",
        ),
        ("pairs",),
    ) | {"power_at": ("pairs", "fold_changes")}
    frame_dims: ClassVar[tuple[str, ...]] = ("pairs", "fold_changes")

    response_id: NDArray[np.str_]
    grna_target: NDArray[np.str_]
    n_treated: NDArray[np.int64]
    expected_count: Array
    theta: Array
    power_at: Array
    fold_changes: tuple[str, ...]
    power: float
    p_threshold: float
    grna_id: NDArray[np.str_] | None = None
    log_2_decrease: Array | None = None
    log_2_increase: Array | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __len__(self) -> int:
        return len(self.theta)

    def to_frame(self, kind: str = "long") -> Any:
        """Return a table of pairs; null where there is no test or no such fold change.

        Parameters
        ----------
        kind : {"long", "wide"}
            Both are the same: power at a fold change is a column ``power_at_0.5``.
        """
        import polars as pl

        columns = {
            name: getattr(self, name)
            for name, dims in self.dims.items()
            if dims == ("pairs",) and getattr(self, name) is not None
        }
        columns |= {
            f"power_at_{name}": self.power_at[:, i] for i, name in enumerate(self.fold_changes)
        }
        return pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))

    def summary(self) -> str:
        """Say in a few lines what can be found."""
        tested = np.isfinite(self.theta)
        lines = [
            f"what can be found with a power of {self.power:g}, at p <= {self.p_threshold:.2g}, in "
            f"{int(tested.sum()):,} of {counted(len(self), 'pair')}"
        ]
        for name, values in (("decrease", self.log_2_decrease), ("increase", self.log_2_increase)):
            if values is None or not tested.any():
                continue
            known = values[tested & np.isfinite(values)]
            middle = f"log2 fold change {np.median(known):+.2f} (median)" if len(known) else "none"
            none = int(tested.sum()) - len(known)
            lines.append(
                f"  {name} found: {middle}, in {counted(len(known), 'pair')}"
                + (f"; in {none:,} none is" if none else "")
            )
        for i, name in enumerate(self.fold_changes):
            if tested.any():
                mean = float(np.mean(self.power_at[tested, i]))
                lines.append(f"  mean power at a fold change of {name}: {mean:.2f}")
        return "\n".join(lines)


def realised_threshold(result: GeneTestResult) -> float:
    """Return the largest p-value that is significant.

    Where none is, the one that the first discovery would need: the level over the number of tests
    (over its harmonic sum, too, with "BY"; the level itself with "none").

    Raises
    ------
    NotAvailableError
        The result is of a power check, or no pair was tested.
    """
    tested = result.pass_qc
    if result.significant is None or not tested.any():
        raise NotAvailableError("the discovery has tested no pair; give p_threshold.")
    found = result.p_value[tested & result.significant]
    if len(found):
        return float(found.max())
    n = int(tested.sum())
    method = result.settings.get("fdr")
    if method == "none":
        return result.level
    harmonic = float(np.sum(1.0 / np.arange(1, n + 1))) if method == "BY" else 1.0
    return result.level / (n * harmonic)


@dataclass(frozen=True, eq=False)
class _BlockOfPowers:
    """Finds the power of a block of pairs."""

    work: BlockOfPairs
    tail: float
    power: float
    changes: Array

    def __call__(self, block: Block) -> dict[str, Array]:
        """Return what is found of the pairs of a block, in their order."""
        names = ("expected_count", "theta", "log_2_decrease", "log_2_increase")
        found = {name: np.full(len(block), np.nan) for name in names}
        found["power_at"] = np.full((len(block), len(self.changes)), np.nan)
        for pair in self.work.fitted(block):
            self._fill(pair, found)
        return found

    def _fill(self, pair: FittedPair, found: dict[str, Array]) -> None:
        from plait.crt import power_kernels as kernels

        place, side = pair.place, _SIGNS[self.work.options.side]
        about = _prepared(pair, self.tail, side)
        found["theta"][place] = pair.fit.theta
        treated = pair.cells.problem.treated_cells(pair.unit)
        found["expected_count"][place] = pair.fit.mean[treated].mean()
        if about is None:
            return
        for i, change in enumerate(self.changes):
            found["power_at"][place, i] = kernels.power_at(about, change)
        for sign, name in ((-1.0, "log_2_decrease"), (1.0, "log_2_increase")):
            if side in (0, sign):
                change = kernels.smallest_change(about, self.power, sign)
                found[name][place] = math.log2(1.0 + change)


def _prepared(pair: FittedPair, tail: float, side: int) -> "PreparedPair | None":
    """Return what the kernels need; None where the covariates determine the treatment."""
    from scipy.special import ndtri

    from plait.crt import power_kernels as kernels
    from plait.crt.gene_tail_kernels import tilted_chances

    fit, cells = pair.fit, pair.cells
    design = cells.problem.design
    treated = cells.problem.treated_cells(pair.unit)
    n_treated, log_odds = cells.law(pair.unit)
    chances, taken_up, influence, g = np.empty((4, len(log_odds)))
    tilted_chances(log_odds, log_odds, 0.0, 0.0, chances)
    factor = np.empty((len(design), len(design)))
    kernels.fill_projection(design, fit.mean, factor)
    variance, lack = kernels.prepare_pair(
        design, factor, fit.parts, fit.mean, treated, chances, n_treated is not None, taken_up,
        influence, g,
    )  # fmt: skip
    if not variance > 0.0:
        return None
    is_treated = np.zeros(len(chances))
    is_treated[treated] = 1.0
    groups = _grouped(is_treated, fit.mean, chances, taken_up, g, influence)
    return kernels.Pair(
        groups=groups,
        theta=fit.theta,
        n_treated=float(len(treated)),
        variance=variance,
        lack=lack,
        quantile=float(-ndtri(tail)),
        sides=side,
        can_fall=kernels.log_chance_of_none(groups, fit.theta) < math.log(tail),
        nodes=np.empty((3, len(groups.count) * kernels.MOST_NODES)),
    )


def _grouped(is_treated: Array, mean: Array, *others: Array) -> "Groups":
    """Take cells of like means together, treated ones and others apart.

    ``others`` are the chances, the shares taken up, g and the influence of cells.
    """
    from plait.crt.power_kernels import Groups

    order = np.lexsort((mean, is_treated))
    n_others = int(np.searchsorted(is_treated[order], 1.0))
    starts = np.concatenate(
        [
            first + np.arange(groups) * n // groups
            for first, n in ((0, n_others), (n_others, len(mean) - n_others))
            for groups in (min(_GROUPS, n),)
        ]
    )
    count = np.diff(np.append(starts, len(mean))).astype(np.float64)

    def averaged(values: Array) -> Array:
        return np.add.reduceat(values[order], starts) / count

    *rest, influence = others
    centre = averaged(influence)
    spread = np.maximum(averaged(influence * influence) - centre * centre, 0.0)
    chance, taken_up, g = map(averaged, rest)
    return Groups(averaged(is_treated), count, averaged(mean), chance, taken_up, g, centre, spread)


def detectable_effects(
    problem: CellProblem,
    units: PairedUnits,
    parameters: ScreenParameters,
    force: Workforce,
    *,
    power: float,
    p_threshold: float,
    fold_changes: Sequence[float],
) -> DetectableEffects:
    """Return what pairs can show; see `plait.crt.gene_screen.GeneScreen.detectable_effects`.

    Raises
    ------
    OptionError
        The strategy is "bonferroni", cells have weights, or a number is out of range.
    """
    started = time.perf_counter()
    if parameters.strategy == "bonferroni":
        raise OptionError(
            "with strategy 'bonferroni' a target is found by any of its guides, of which each has "
            "a power; give 'singleton' or 'union'."
        )
    if parameters.weights is not None:
        raise OptionError("with weights of cells power is not known; leave the weights out for it.")
    for name, value in (("power", power), ("p_threshold", p_threshold)):
        if not 0.0 < real_number(value, name) < 1.0:
            raise OptionError(f"{name} is {value}; give a number between 0 and 1.")
    if isinstance(fold_changes, str) or not isinstance(fold_changes, Iterable):
        raise InputTypeError(f"fold_changes is {fold_changes!r}; give several numbers.")
    fold_changes = [real_number(value, "a fold change") for value in fold_changes]
    if bad := [value for value in fold_changes if not 0.0 <= value < math.inf]:
        raise OptionError(f"a fold change is {bad[0]}; give numbers of 0 or more (1 is no change).")
    quality = problem.quality(units)
    passing = np.flatnonzero(quality.passing)
    genes = problem.gene_problem(units, quality)
    work = BlockOfPairs.of(
        genes, units.response[passing], units.unit[passing], parameters.test_options(1), force
    )
    tail = p_threshold / 2.0 if parameters.side == "both" else p_threshold
    changes = np.asarray(fold_changes, dtype=np.float64) - 1.0
    blocks = _BlockOfPowers(work, tail, power, changes)
    n = len(units.unit)
    names = ["expected_count", "theta"]
    names += ["log_2_decrease"] * (parameters.side != "right")
    names += ["log_2_increase"] * (parameters.side != "left")
    found = {name: np.full(n, np.nan) for name in names}
    found["power_at"] = np.full((n, len(changes)), np.nan)
    with stage("pairs", len(work)) as advance:
        for block, part in run_blocks(blocks, plan_blocks(len(work), work.size), force, "power"):
            for name, values in found.items():
                values[passing[work.order[block.rows]]] = part[name]
            advance(len(block))
    return DetectableEffects(
        **found,
        response_id=problem.response_names[units.response],
        grna_target=units.targets,
        grna_id=units.guides,
        n_treated=np.diff(quality.treated.indptr)[units.unit].astype(np.int64),
        fold_changes=tuple(f"{value:g}" for value in fold_changes),
        power=power,
        p_threshold=p_threshold,
        settings=parameters.described(),
        provenance=Provenance(
            "crt detectable",
            options=parameters.described()
            | {"power": power, "p_threshold": p_threshold, "fold_changes": list(fold_changes)},
            seed=parameters.seed,
            inputs=problem.digests(),
            seconds=time.perf_counter() - started,
            threads=force.workers * force.threads,
        ),
    )
