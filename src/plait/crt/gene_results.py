"""Results of tests of targets on genes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plait.data.p_values import p_value_text
from plait.data.words import counted
from plait.errors import NotAvailableError
from plait.io.result import Result
from plait.provenance import Provenance

Array = NDArray[np.float64]

_MOST_SHOWN, _MOST_POSITIVE_CONTROLS = 8, 20
_CHOICES = ("side", "control_group", "mechanism", "resampling")
_WORDS = {
    "both": "effects of both signs",
    "left": "genes that go down",
    "right": "genes that go up",
    "nt_cells": "against cells of non-targeting guides",
    "complement": "against all other cells",
    "permutations": "treatments permuted",
    "crt": "treatments drawn given covariates",
    "analytic": "analytic p-values",
    "sceptre_staged": "p-values by sceptre's stages",
}


@dataclass(frozen=True, eq=False, repr=False)
class GeneTestResult(Result):
    """What P pairs of a target and a gene show, by p-value; those not tested come last.

    Attributes
    ----------
    response_id, grna_target : (P,) arrays of str
        The gene and the target. Of a calibration check the target is the guides that stand for
        one, joined by "&".
    grna_id : (P,) array of str or None
        The guide, where guides are tested one by one ("singleton").
    n_nonzero_trt, n_nonzero_cntrl : (P,) int arrays
        Treated cells and controls with counts of the gene.
    pass_qc : (P,) array of bool
        Whether these are enough. Other pairs are not tested, and NaN below.
    p_value, log10_p : (P,) arrays
    q_value : (P,) array or None
        False discovery rates (or adjusted p-values); None of a power check.
    significant : (P,) array of bool or None
        Whether ``q_value`` is below the level.
    fold_change, se_fold_change, log_2_fold_change : (P,) arrays
        Counts of treated cells over what the covariates let expect, its standard error given that,
        and its logarithm, as in sceptre. Treated cells are among those that say what to expect: if
        they are the share h of the cells, a change f is found as ``f / (1 - h + h f)``, nearer 1,
        which matters where there are not many more controls than treated cells.
    z_orig : (P,) array
        The statistic, under the name it has in sceptre.
    theta : (P,) array
        Size of the negative binomial.
    p_method : (P,) array of str
        "bulk" (four cumulants), "saddlepoint", "monte carlo" (counted), "tilted draws" (of rare
        events); "empirical" or "skew-normal" of staged resamples; "none" where there is no test,
        or the covariates determine the treatment.
    stage : (P,) int array or None
        Of staged resamples; 0 without a test.
    xi, omega, alpha : (P,) arrays or None
        Location, scale and shape of the skew-normal.
    null_draws : (P, resamples) array or None
        Statistics of the resamples that the p-value is from, those of its stage, if they were kept
        (``keep_draws``); NaN after the last, and without a test. They stay in their store and are
        read by rows: ``result.null_draws[:10]``.
    analysis : {"calibration", "power", "discovery"}
    level : float
        Of ``significant``.
    notes : tuple of str
        What of the settings can make p-values wrong, and what to do; `summary` says it, too.
    settings : dict
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "crt-genes"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        (
            "response_id",
            "grna_id",
            "grna_target",
            "n_nonzero_trt",
            "n_nonzero_cntrl",
            "pass_qc",
            "p_value",
            "fold_change",
            "se_fold_change",
            "log_2_fold_change",
            "significant",
            "q_value",
            "log10_p",
            "p_method",
            "z_orig",
            "theta",
            "stage",
            "xi",
            "omega",
            "alpha",
        ),
        ("pairs",),
    ) | {"null_draws": ("pairs", "resamples")}
    frame_dims: ClassVar[tuple[str, ...]] = ("pairs",)

    response_id: NDArray[np.str_]
    grna_target: NDArray[np.str_]
    n_nonzero_trt: NDArray[np.int64]
    n_nonzero_cntrl: NDArray[np.int64]
    pass_qc: NDArray[np.bool_]
    p_value: Array
    log10_p: Array
    fold_change: Array
    se_fold_change: Array
    log_2_fold_change: Array
    z_orig: Array
    theta: Array
    p_method: NDArray[np.str_]
    grna_id: NDArray[np.str_] | None = None
    q_value: Array | None = None
    significant: NDArray[np.bool_] | None = None
    stage: NDArray[np.int64] | None = None
    xi: Array | None = None
    omega: Array | None = None
    alpha: Array | None = None
    null_draws: Array | None = None
    analysis: str = "discovery"
    level: float = 0.1
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __len__(self) -> int:
        return len(self.p_value)

    def __repr__(self) -> str:
        return (
            f"GeneTestResult({self.analysis}: {counted(len(self), 'pair')}, "
            f"{int(self.pass_qc.sum()):,} tested; {self.settings.get('side')}, "
            f"{self.settings.get('control_group')}, {self.settings.get('mechanism')}, "
            f"{self.settings.get('resampling')})"
        )

    def to_frame(self, kind: str = "long") -> Any:
        """Return a table of pairs with a column for each quantity; null where there is no test.

        Parameters
        ----------
        kind : {"long", "wide"}
            Both are the same, as a pair has one of each.
        """
        import polars as pl

        is_null = pl.Series(~self.pass_qc)
        columns = []
        for name, dims in self.dims.items():
            values = getattr(self, name)
            if values is None or dims != ("pairs",):
                continue
            series = pl.Series(name, np.asarray(values))
            if series.dtype.is_float():
                series = series.fill_nan(None)
            elif name in ("significant", "stage"):
                series = pl.select(pl.when(is_null).then(None).otherwise(series)).to_series()
            columns.append(series.alias(name))
        return pl.DataFrame(columns)

    def summary(self) -> str:
        """Say in a few lines what was found."""
        tested = self.pass_qc
        lines = [
            f"{self.analysis}: {counted(len(self), 'pair')} of a target and a gene",
            self._how(),
            *(f"  note: {note}" for note in self.notes),
        ]
        if self.analysis == "calibration" and not len(self):
            lines.append(
                "  no group of non-targeting guides has enough treated and control cells with "
                "counts of a gene: nothing says whether p-values are right"
            )
        if not tested.all():
            lines.append(
                f"  not tested: {int((~tested).sum()):,}, with too few treated or control cells "
                "with counts"
            )
        if not tested.any():
            return "\n".join(lines)
        p = self.p_value[tested]
        if self.analysis == "calibration":
            share = float(np.mean(p < 0.05))
            lines.append(f"  p-values below 0.05: {share:.1%} (5% expected)")
            lines.append(
                f"  mean log2 fold change: {np.mean(self._finite_folds()):+.3f} (0 expected)"
            )
        if self.significant is not None:
            found = int((self.significant & tested).sum())
            what = "false discoveries" if self.analysis == "calibration" else "discoveries"
            lines.append(f"  {what} at a false discovery rate of {self.level:g}: {found:,}")
        if self.analysis == "power":
            middle = p_value_text(float(np.median(self.log10_p[tested])))
            below = f"{int((p < 0.05).sum()):,} of {len(p):,}"
            lines.append(f"  p-values below 0.05: {below}; the median is {middle}")
        return "\n".join(lines + self._surest())

    def _surest(self) -> list[str]:
        """Name the surest discoveries, or of none the surest pair; of positive controls all."""
        n_tested = int(self.pass_qc.sum())
        if self.analysis == "power" or self.significant is None:
            return self._named(min(n_tested, _MOST_POSITIVE_CONTROLS))
        found = int((self.significant & self.pass_qc).sum())
        if not found:
            return ["  the surest pair is not significant:", *self._named(1)]
        lines = self._named(min(found, _MOST_SHOWN))
        return lines if found <= _MOST_SHOWN else [*lines, f"    and {found - _MOST_SHOWN:,} more"]

    def _named(self, count: int) -> list[str]:
        who = self.grna_target if self.grna_id is None else self.grna_id
        return [
            f"    {who[i]} -> {self.response_id[i]}: log2 fold change "
            f"{self.log_2_fold_change[i]:+.2f}, p = {p_value_text(float(self.log10_p[i]))}"
            for i in range(count)
        ]

    def rates_from_calibration(self, calibration: "GeneTestResult") -> Array:
        """Return false discovery rates as negative controls show them.

        Parameters
        ----------
        calibration : GeneTestResult
            Of the same screen.

        Returns
        -------
        (P,) array
            At a p-value t: the share of negative controls at or below t, over that of these pairs
            (Storey and Tibshirani 2003, with the negative controls in place of a uniform
            distribution). At most 1, never decreasing with p; NaN where there is no test.

        Raises
        ------
        NotAvailableError
            The negative controls have no p-values.
        """
        null = np.sort(calibration.log10_p[calibration.pass_qc])
        if not len(null):
            raise NotAvailableError("the calibration check has tested no pair.")
        p = self.log10_p[self.pass_qc]
        order = np.argsort(p, kind="stable")
        ranked = p[order]
        null_share = (1.0 + np.searchsorted(null, ranked, side="right")) / (1.0 + len(null))
        share = np.searchsorted(ranked, ranked, side="right") / len(ranked)
        smallest = np.minimum.accumulate((null_share / share)[::-1])[::-1]
        rates = np.empty(len(p))
        rates[order] = np.minimum(smallest, 1.0)
        whole = np.full(len(self), np.nan)
        whole[self.pass_qc] = rates
        return whole

    def _how(self) -> str:
        named = [_WORDS.get(str(self.settings.get(name))) for name in _CHOICES]
        return "  " + ", ".join(words for words in named if words)

    def _finite_folds(self) -> Array:
        folds = self.log_2_fold_change
        return folds[np.isfinite(folds)]
