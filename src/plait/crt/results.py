"""What a screen's tests found: the effect of every perturbation on every program."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.data.p_values import p_value_text
from plait.data.words import counted, listed
from plait.errors import NotAvailableError, OptionError
from plait.io.result import Result
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]
_LEAST_EIGENVALUE = 1e-3
_NO_VARIANCE = 1e-8
_MOST_SHOWN, _MOST_NAMED, _MOST_LISTED = 8, 5, 50
_CHOICES = ("statistic", "side", "sampler", "method")
_WORDS = {
    "ols": "effects by least squares",
    "utest": "rank-biserial correlations",
    "both": "of both signs",
    "left": "that lower",
    "right": "that raise",
    "bernoulli": "treatments drawn cell by cell",
    "stratified": "treatments permuted within strata",
    "analytic": "analytic p-values",
    "empirical": "p-values counted in resamples",
    "skew-normal": "p-values of fitted skew-normals",
    "adaptive": "p-values counted in as many resamples as each needs",
    "ntc-empirical": "p-values among pseudo-genes of negative-control guides",
}

_REASONS = {
    "few_treated": "of few treated cells",
    "skewed": "with a skewed null",
    "few_cells": "that a few cells decide",
    "beyond_support": "of effects beyond what the analytic form reaches",
}

_log = logging.getLogger("plait.crt")


@dataclass(frozen=True, eq=False, repr=False)
class CRTResult(Result):
    """Effects of J perturbations (units) on K programs, with their p-values.

    Attributes
    ----------
    beta : (J, K) array
        Shift of the log of a program's usage relative to the geometric mean of the cell's usages;
        of the U statistic the rank-biserial correlation. 0 where a unit is degenerate.
    p, log10p : (J, K) arrays
        P-values by ``method``, and their logs, which hold what is below 1e-308.
    q : (J, K) array or None
        False discovery rates among the tests that are not of negative controls; NaN elsewhere.
    p_method : (J, K) array of str
        How each p-value was made: "bulk", "saddlepoint", "monte carlo", "empirical",
        "skew-normal", "controls" (among pseudo-genes of negative-control guides), or "none" (it is
        1 then).
    status : (J,) array of str
        "ok"; "degenerate": no cell or every cell is treated, or the covariates determine the
        treatment; "no_variation": every resample would equal the data; "few_cells": too few for
        comparison with negative controls in every batch. All but the first have p = 1. Single
        p-values of an "ok" unit may be counts: see ``p_flag``, which `summary` sums up.
    n_treated : (J,) int array
    expected_treated : (J,) array
        Sum of the propensities.
    se : (J, K) array or None
        Standard errors of least squares.
    null_sd : (J, K) array or None
        Standard deviation of ``beta`` under the null, given covariates and outcomes.
    denominator : (J,) array or None
        ``D = x'Mx``.
    p_raw, p_skew : (J, K) arrays or None
        Counted and skew-normal p-values of resamples.
    skew_parameters : (J, K, 3) array or None
        Location, scale and shape of the skew-normal fitted to standardised resamples.
    skew_status : (J, K) array of str or None
        See `plait.crt.p_values.SkewNormalPValues`.
    n_resamples : (J, K) int array or None
        Resamples that a p-value was made of; 0 where none was drawn.
    p_flag : (J, K) array of str or None
        Of analytic p-values "ok", or why one was drawn: "few_treated", "skewed" (one tail of the
        null is heavy), "few_cells" (a few cells decide) or "beyond_support" (the effect is beyond
        what its linear form can reach); "none" where nothing was tested.
    n_strata, n_informative_strata : (J,) int arrays or None
        Strata of cells, and those with treated and untreated ones.
    n_propensity_bins : (J,) int array or None
        Bins of the propensity that were left of those asked for after equal edges were joined.
    uninformative_share : (J,) array or None
        Share of the treated cells that no resample moves.
    residual_correlation : (K, K) array or None
        Of the programs given the covariates.
    units, programs : tuple of str
    negative_controls : tuple of str
        The units that are negative controls.
    settings : dict
        Statistic, sampler, method, side, resamples, floor of the usages.
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "crt"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(
            (
                "beta",
                "p",
                "log10p",
                "q",
                "p_method",
                "se",
                "null_sd",
                "p_raw",
                "p_skew",
                "skew_status",
                "n_resamples",
                "p_flag",
            ),
            ("units", "programs"),
        ),
        "skew_parameters": ("units", "programs", "parameters"),
        **dict.fromkeys(
            (
                "status",
                "n_treated",
                "expected_treated",
                "denominator",
                "n_strata",
                "n_informative_strata",
                "n_propensity_bins",
                "uninformative_share",
            ),
            ("units",),
        ),
        "residual_correlation": ("programs", "programs"),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("units", "programs")

    beta: Array
    p: Array
    log10p: Array
    p_method: NDArray[np.str_]
    status: NDArray[np.str_]
    n_treated: NDArray[np.int64]
    expected_treated: Array
    units: tuple[str, ...]
    programs: tuple[str, ...]
    q: Array | None = None
    se: Array | None = None
    null_sd: Array | None = None
    denominator: Array | None = None
    p_raw: Array | None = None
    p_skew: Array | None = None
    skew_parameters: Array | None = None
    skew_status: NDArray[np.str_] | None = None
    n_resamples: NDArray[np.int64] | None = None
    p_flag: NDArray[np.str_] | None = None
    n_propensity_bins: NDArray[np.int64] | None = None
    n_strata: NDArray[np.int64] | None = None
    n_informative_strata: NDArray[np.int64] | None = None
    uninformative_share: Array | None = None
    residual_correlation: Array | None = None
    negative_controls: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def is_control(self) -> NDArray[np.bool_]:
        """Which units are negative controls, (J,)."""
        return np.isin(np.asarray(self.units), self.negative_controls)

    def __repr__(self) -> str:
        about = self.settings
        return (
            f"CRTResult({counted(len(self.units), 'perturbation')} x "
            f"{counted(len(self.programs), 'program')}; {about.get('statistic')}, "
            f"{about.get('sampler')}, {about.get('method')} p-values)"
        )

    def to_frame(self, kind: str = "long") -> "DataFrame":
        """Return a table; see `plait.io.result.Result.to_frame`.

        Parameters
        ----------
        kind : {"long", "wide"}
            ``"long"`` (default): a row per perturbation and program, with the perturbation's
            ``status`` and ``n_treated``, and what is known of its strata. ``"wide"``: a row per
            perturbation.

        Returns
        -------
        polars.DataFrame
        """
        import polars as pl

        frame = super().to_frame(kind)
        if kind == "wide":
            return frame
        row = np.repeat(np.arange(len(self.units)), len(self.programs))
        of_units = {"status": self.status, "n_treated": self.n_treated, **self.of_strata()}
        return frame.with_columns(
            [pl.Series(name, values[row]) for name, values in of_units.items()]
        )

    def of_strata(self) -> dict[str, NDArray[Any]]:
        """Return what is known of the strata of each unit, by name; nothing without strata."""
        named = {
            "n_strata": self.n_strata,
            "n_informative_strata": self.n_informative_strata,
            "n_propensity_bins": self.n_propensity_bins,
            "uninformative_share": self.uninformative_share,
        }
        return {name: values for name, values in named.items() if values is not None}

    def summary(self, level: float = 0.1) -> str:
        """Say in a few lines what was found.

        Parameters
        ----------
        level : float
            False discovery rate of what is called significant.
        """
        lines = [
            f"screen: {counted(len(self.units), 'perturbation')} on "
            f"{counted(len(self.programs), 'program')}"
        ]
        is_drawn = self.settings.get("method") != "ntc-empirical"
        chosen = [name for name in _CHOICES if is_drawn or name != "sampler"]
        named = [_WORDS.get(str(self.settings.get(name))) for name in chosen]
        if any(named):
            lines.append("  " + ", ".join(words for words in named if words))
        if others := self.untested():
            lines.append(f"  not tested (p = 1): {others}")
        lines += self._how_made()
        if self.is_control.all() and (self.status == "ok").any():
            # Beside other units, a target of all control guides has more cells than these have.
            p = self.p[self.status == "ok"]
            lines.append(
                f"  negative controls: {np.mean(p < 0.05):.1%} of {p.size:,} p-values below 0.05 "
                "(5% expected)"
            )
        if self.q is not None:
            lines += self._significant(level)
        return "\n".join(lines)

    def _how_made(self) -> list[str]:
        """Say how many p-values were drawn, and why, and what strata left to vary."""
        lines, ok = self._drawn() + self._of_one_cell(), self.status == "ok"
        if self.n_strata is not None and self.n_informative_strata is not None and ok.any():
            share = np.asarray(self.uninformative_share)[ok]
            lines.append(
                f"  strata (medians): {int(np.median(self.n_strata[ok])):,} of a perturbation, "
                f"{int(np.median(self.n_informative_strata[ok])):,} of them with treated and "
                f"untreated cells; {np.median(share):.1%} of the treated cells (up to "
                f"{share.max():.1%}) are in others, where nothing varies"
            )
        return lines

    def _of_one_cell(self) -> list[str]:
        """Name the units of one treated cell, where treatments are drawn cell by cell.

        Fitted propensities expect one treated cell, as there is, but resamples treat one or more,
        and effects of more cells are smaller. Those of one cell alone would give the right p-value;
        they are 1 / (e - 1) of all, so that it is at most e - 1 times as large.
        """
        about = self.settings
        if about.get("sampler") != "bernoulli" or about.get("method") == "ntc-empirical":
            return []
        which = (self.status == "ok") & (self.n_treated == 1)
        if not which.any():
            return []
        units = counted(int(which.sum()), "perturbation")
        return [
            f"  p-values too small, by a factor of up to 1.7: {units} of one treated cell "
            f"({self._named(which)}). Leave such perturbations out, or permute treatments within "
            "strata"
        ]

    def _drawn(self) -> list[str]:
        """Say how many analytic p-values were drawn, and which are beyond the analytic form."""
        is_drawn = (self.p_method == "monte carlo") & (self.status == "ok")[:, None]
        if self.p_flag is None or self.n_resamples is None or not is_drawn.any():
            return []
        why = ", ".join(
            f"{int(which.sum()):,} {_REASONS.get(str(flag), flag)}"
            for flag in np.unique(self.p_flag[is_drawn])
            if (which := is_drawn & (self.p_flag == flag)).any()
        )
        n_tests = int((self.status == "ok").sum()) * len(self.programs)
        lines = [
            f"  drawn: {int(is_drawn.sum()):,} of {n_tests:,} p-values ({why}), in up to "
            f"{counted(int(self.n_resamples[is_drawn].max()), 'resample')}"
        ]
        is_beyond = is_drawn & (self.p_flag == "beyond_support")
        if is_beyond.any():
            named = [f"{self.units[j]} -> {self.programs[k]}" for j, k in np.argwhere(is_beyond)]
            least = p_value_text(float(self.log10p[is_beyond].min()))
            lines.append(
                f"  beyond the analytic form: {listed(named, _MOST_NAMED)}; the smallest of these "
                f"p-values is {least}, and resamples show none below 1 / (their number + 1)"
            )
        return lines

    def untested(self, most: int = _MOST_NAMED) -> str:
        """Say how many units were not tested, why, and which; empty where all were.

        Parameters
        ----------
        most : int
            Units of each kind that are named.
        """
        return ", ".join(
            f"{counted(int(which.sum()), 'perturbation')} ({cause}: {self._named(which, most)})"
            for cause, which in self.causes().items()
        )

    def causes(self) -> dict[str, NDArray[np.bool_]]:
        """Return why units were not tested, in words, and which units that are."""
        n_cells, degenerate = self.settings.get("cells"), self.status == "degenerate"
        none = degenerate & (self.n_treated == 0)
        every = degenerate & ~none & (self.n_treated == (-1 if n_cells is None else n_cells))
        rest = "the covariates determine the treatment"
        if n_cells is None:
            rest += " or every cell is treated"
        found = {
            "no cell is treated": none,
            "every cell is treated": every,
            rest: degenerate & ~none & ~every,
            "strata leave nothing to vary": self.status == "no_variation",
            "too few cells in every batch to compare with controls": self.status == "few_cells",
        }
        return {cause: units for cause, units in found.items() if units.any()}

    def _named(self, which: NDArray[np.bool_], most: int = _MOST_NAMED) -> str:
        return listed([self.units[j] for j in np.flatnonzero(which)], most)

    def _significant(self, level: float) -> list[str]:
        assert self.q is not None
        found = np.nan_to_num(self.q, nan=1.0) < level
        if not found.any():
            return [f"  no effect is significant at a false discovery rate of {level:g}"]
        lines = [
            f"  significant at a false discovery rate of {level:g}: "
            f"{counted(int(found.sum()), 'effect')} of "
            f"{counted(int(found.any(axis=1).sum()), 'perturbation')} on "
            f"{counted(int(found.any(axis=0).sum()), 'program')}"
        ]
        first = surest_effects(self, found)[:_MOST_SHOWN]
        for unit, program in first:
            p = p_value_text(float(self.log10p[unit, program]))
            pair = f"{self.units[unit]} -> {self.programs[program]}"
            lines.append(f"    {pair}: {self.beta[unit, program]:+.3f}, p = {p}")
        if found.sum() > len(first):
            lines.append(f"    and {int(found.sum()) - len(first):,} more")
        return lines

    def to_effects(
        self,
        se: str = "null",
        null_correlation: str | None = "residual",
        *,
        with_controls: bool = False,
    ) -> Effects:
        """Return the effects with their errors, for mash: perturbations x programs.

        Parameters
        ----------
        se : {"null", "ols"}
            Standard deviation of the effect when treatments are drawn anew, or the standard error
            of least squares.
        null_correlation : {"residual", None}
            Correlation of the errors: that of the programs given the covariates, or none.
        with_controls : bool
            Whether negative controls are among the perturbations. They have no effects: mash would
            learn from them that effects are rarer and smaller than those of perturbations are.

        Returns
        -------
        Effects
            Of the units whose status is "ok" and that are no negative controls, on the programs
            that vary. A logged warning lists the units that were not tested.

        Raises
        ------
        NotAvailableError
            The effects are rank-biserial correlations, no unit that is no control was tested, or no
            program varies.
        OptionError
            An option is unknown.

        Notes
        -----
        Centred log-ratios sum to 0 over programs, and so do the effects of a perturbation: one
        program that goes up lowers the others. Their exact error correlation is therefore singular
        in one direction, in which the data say nothing. That direction is given the variance of an
        average one, and standard errors grow accordingly (by 4 % with 12 programs); contrasts
        between programs, which is what the data hold, keep their exact errors. A small variance
        there instead would say that programs were seen not to change together, and hide effects.
        """
        if null_correlation not in ("residual", None):
            raise OptionError(f"null_correlation is {null_correlation!r}; give 'residual' or None.")
        if se not in ("null", "ols"):
            raise OptionError(f"se is {se!r}; give 'null' or 'ols'.")
        errors = self.null_sd if se == "null" else self.se
        if errors is None or self.residual_correlation is None:
            raise NotAvailableError(
                "rank-biserial correlations have no standard errors; test with statistic='ols'."
            )
        keep = self._units_with_effects(with_controls)
        varies = np.flatnonzero((errors[keep] > 0.0).any(axis=0))
        if not len(varies):
            raise NotAvailableError("no program varies; there are no effects.")
        correlation, growth = None, np.ones(len(varies))
        if null_correlation is not None:
            correlation, growth = _invertible(self.residual_correlation[np.ix_(varies, varies)])
        return Effects(
            self.beta[np.ix_(keep, varies)],
            errors[np.ix_(keep, varies)] * growth,
            correlation,
            np.asarray(self.units)[keep],
            tuple(self.programs[k] for k in varies),
            self.provenance,
        )

    def _units_with_effects(self, with_controls: bool) -> NDArray[np.intp]:
        is_tested = self.status == "ok"
        is_left_out = is_tested & self.is_control & (not with_controls)
        keep = np.flatnonzero(is_tested & ~is_left_out)
        if not len(keep) and is_left_out.any():
            raise NotAvailableError(
                "all perturbations that were tested are negative controls; there are no effects. "
                "Those of controls come with with_controls=True."
            )
        if not len(keep):
            raise NotAvailableError("no perturbation was tested; there are no effects.")
        if is_left_out.any():
            _log.info("left out of the effects, as negative controls: %s", self._named(is_left_out))
        if others := self.untested(most=_MOST_LISTED):
            _log.warning("left out of the effects, as they were not tested: %s", others)
        return keep


def z_scores(result: CRTResult) -> Array:
    """Return effects over their errors; of rank-biserial correlations, normal scores of p.

    Parameters
    ----------
    result : CRTResult

    Returns
    -------
    (J, K) array
        Effects over their standard deviation without effects, or where that is not known over
        their standard error of least squares; 0 where a unit was not tested. Normal scores are of
        p-values and have the sign of the effect; of a one-sided test they have that of its side,
        and effects against it 0.
    """
    errors = result.null_sd if result.null_sd is not None else result.se
    if errors is None:
        from scipy.special import ndtri_exp

        sign: Any = {"left": -1.0, "right": 1.0}.get(result.settings.get("side", "both"))
        sides = 1.0
        if sign is None:
            sign, sides = np.sign(result.beta), 2.0
        tail = result.log10p * np.log(10.0) - np.log(sides)
        return np.asarray(sign * np.maximum(-ndtri_exp(tail), 0.0))
    usable = np.isfinite(errors) & (errors > 0)
    return np.divide(result.beta, errors, out=np.zeros(result.beta.shape), where=usable)


def surest_effects(result: CRTResult, chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return chosen effects (unit, program), the surest first.

    Of equal p-values, as counted ones are, the largest effect over its error is the surest.
    """
    units, programs = np.nonzero(chosen)
    keys = (np.abs(result.beta), np.abs(z_scores(result)), -result.log10p)
    order = np.lexsort([-key[units, programs] for key in keys])
    return [(int(units[i]), int(programs[i])) for i in order]


def _invertible(correlation: Array) -> tuple[Array, Array]:
    """Return an invertible correlation, and the growth of standard errors that goes with it.

    Directions without variance get that of an average direction; others at least 0.001.
    """
    values, vectors = np.linalg.eigh(correlation)
    is_empty = values < _NO_VARIANCE
    average = values[~is_empty].mean()
    raised = np.where(is_empty, average, np.maximum(values, _LEAST_EIGENVALUE))
    covariance = (vectors * raised) @ vectors.T
    growth = np.sqrt(np.diag(covariance))
    scaled: Array = covariance / np.outer(growth, growth)
    return (scaled + scaled.T) / 2.0, growth
