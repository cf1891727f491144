"""How perturbations are tested: what is measured, how treatments are drawn, which p-value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from plait.crt.arguments import number_array, option_names, real_number, whole_number
from plait.crt.given_propensities import is_labelled
from plait.crt.propensity import PropensityModel, check_propensity_model, fit_propensity_logistic
from plait.crt.ranks import RankMethod, check_rank_options
from plait.crt.strata import StrataOptions
from plait.errors import OptionError
from plait.execution.devices import torch_device

MOST_RESAMPLES = 10**7
"""All resamples of a unit are held at once: 8 bytes for each program and column of covariates."""
METHODS = ("analytic", "empirical", "skew-normal", "adaptive")
METHOD_NAMES = {name: name for name in METHODS} | {
    "spa": "analytic",
    "mc_adaptive": "adaptive",
    "skew_normal": "skew-normal",
}
_STATISTIC_NAMES = {
    "ols": "ols",
    "beta": "ols",
    **dict.fromkeys(("utest", "wilcoxon", "mannwhitney", "mannwhitneyu"), "utest"),
}
_SAMPLER_NAMES = {
    "bernoulli": "bernoulli",
    "bernoulli_index": "bernoulli",
    "stratified": "stratified",
    "stratified_perm": "stratified",
}
_SIDES = ("both", "left", "right")
_SIDES_OF_CODES = {-1: "left", 0: "both", 1: "right"}
_OUTCOMES = ("clr", "usage", "residual")


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What is ranked for the U statistic.

    Attributes
    ----------
    use : {"clr", "usage", "residual"}
        Centred log-ratios (default), usages, or log-ratios given the covariates.
    rank_method : {"average", "min", "max", "dense", "ordinal"}
        What ties get; only with "average" is the statistic a true U.
    rank_dtype : dtype
        float64 (default), or float32, in which more values tie.
    """

    use: str = "clr"
    rank_method: RankMethod = "average"
    rank_dtype: Any = "float64"

    def __post_init__(self) -> None:
        if self.use not in _OUTCOMES:
            raise OptionError(f"use is {self.use!r}; give one of {', '.join(_OUTCOMES)}.")
        check_rank_options(self.rank_method, self.rank_dtype)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | None) -> "RankOptions":
        """Return the options of a dictionary.

        Raises
        ------
        InputTypeError
            They are no mapping, or an option is unknown; it is also a TypeError.
        OptionError
            A value is unknown.
        """
        known = ("use", "rank_method", "rank_dtype")
        return cls(**option_names(options, known, "the U statistic"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CRTOptions:
    """How every perturbation of a screen is tested.

    Attributes
    ----------
    statistic : {"ols", "utest"}
        The effect given the covariates, or the rank-biserial correlation, which is not adjusted.
        "beta"; "wilcoxon", "mannwhitney" and "mannwhitneyu" are the same two.
    sampler : {"bernoulli", "stratified"}
        Treat each cell by its propensity, or permute within strata. "bernoulli_index" and
        "stratified_perm" are the same two.
    method : {"analytic", "empirical", "skew-normal", "adaptive"}
        The p-value. "spa", "skew_normal" and "mc_adaptive" are the first, third and fourth.
    side : {"both", "left", "right"}
    calibrated_side : {"both", "left", "right"} or None
        Side of the skew-normal p-value alone; None: ``side``.
    resamples : int
        B, of the empirical and skew-normal p-values; 0 leaves all p-values at 1.
    exceedances, max_resamples : int
        h and B_max of p-values that are drawn until that many resamples are as extreme, by
        "adaptive", and by "analytic" where it draws.
    bulk_above : float
        Analytic p-values above it are left to four cumulants.
    propensity_model : callable, "const", (cells, units) array or DataFrame
        See `plait.crt.propensity.propensity_blocks` and `plait.crt.given_propensities`.
    strata : StrataOptions
    ranks : RankOptions
    seed : int
    device : {"cpu", "cuda", "auto"}
        Where effects of Bernoulli draws are computed.
    """

    statistic: str = "ols"
    sampler: str = "bernoulli"
    method: str = "analytic"
    side: str = "both"
    calibrated_side: str | None = None
    resamples: int = 1023
    exceedances: int = 20
    max_resamples: int = 10**6
    bulk_above: float = 0.02
    propensity_model: PropensityModel = fit_propensity_logistic
    strata: StrataOptions = field(default_factory=StrataOptions)
    ranks: RankOptions = field(default_factory=RankOptions)
    seed: int = 123
    device: str = "cpu"

    def __post_init__(self) -> None:
        statistic = "ols" if self.statistic is None else str(self.statistic).lower()
        for name, value, known in (
            ("statistic", statistic, _STATISTIC_NAMES),
            ("sampler", self.sampler, _SAMPLER_NAMES),
            ("method", self.method, METHOD_NAMES),
        ):
            if not isinstance(value, str) or value not in known:
                raise OptionError(
                    f"{name} is {value!r}; give one of {', '.join(map(repr, known))}."
                )
            object.__setattr__(self, name, known[value])
        for name in ("side", "calibrated_side"):
            side = getattr(self, name)
            if side not in _SIDES and not (name == "calibrated_side" and side is None):
                raise OptionError(f"{name} is {side!r}; give one of {', '.join(_SIDES)}.")
        whole_number(self.resamples, "resamples", most=MOST_RESAMPLES)
        whole_number(self.exceedances, "exceedances", least=1)
        whole_number(self.max_resamples, "max_resamples", least=1)
        if not 0.0 <= real_number(self.bulk_above, "bulk_above") <= 1.0:
            raise OptionError(f"bulk_above is {self.bulk_above}; give a p-value, from 0 to 1.")
        whole_number(self.seed, "the seed", least=0)
        if not is_labelled(self.propensity_model):
            check_propensity_model(self.propensity_model)
        if self.device != "cpu" and not self.can_use_device:
            raise OptionError(
                f"device is {self.device!r}; a GPU draws for method 'empirical' or 'skew-normal', "
                "statistic 'ols' and sampler 'bernoulli' only. Give 'cpu'."
            )

    @classmethod
    def from_programde(
        cls,
        method: str,
        B: int,
        base_seed: int,
        propensity_model: PropensityModel,
        resampling_method: str,
        resampling_kwargs: Mapping[str, Any] | None,
        test_stat: str | None,
        test_stat_kwargs: Mapping[str, Any] | None,
        *,
        side: str = "both",
        calibrated_side: str | None = None,
    ) -> "CRTOptions":
        """Return the options that arguments of programDE's functions mean.

        Raises
        ------
        OptionError
            One is unknown, out of range, or does nothing beside the others.
        """
        options = cls(
            statistic="ols" if test_stat is None else test_stat,
            sampler=resampling_method,
            method=method,
            resamples=B,
            propensity_model=propensity_model,
            strata=StrataOptions.from_mapping(resampling_kwargs),
            ranks=RankOptions.from_mapping(test_stat_kwargs),
            seed=base_seed,
            side=side,
            calibrated_side=calibrated_side,
        )
        is_stratified, is_ranked = options.sampler == "stratified", options.statistic == "utest"
        refuse_idle("resampling_kwargs", resampling_kwargs, is_stratified, "stratified_perm")
        refuse_idle("test_stat_kwargs", test_stat_kwargs, is_ranked, "test_stat='utest'")
        return options

    @property
    def is_resampled(self) -> bool:
        """Whether a fixed number of resamples is drawn."""
        return self.method in ("empirical", "skew-normal")

    @property
    def can_use_device(self) -> bool:
        """Whether a GPU can draw the resamples."""
        return self.is_resampled and self.statistic == "ols" and self.sampler == "bernoulli"

    def described(self) -> dict[str, Any]:
        """Return the options as a record of a run holds them."""
        model = self.propensity_model
        return {
            "statistic": self.statistic,
            "sampler": self.sampler,
            "method": self.method,
            "side": self.side,
            "calibrated_side": self.calibrated_side,
            "resamples": self.resamples if self.is_resampled else None,
            "exceedances": None if self.is_resampled else self.exceedances,
            "max_resamples": None if self.is_resampled else self.max_resamples,
            "bulk_above": self.bulk_above if self.method == "analytic" else None,
            "propensity_model": (
                np.asarray(model)
                if isinstance(model, np.ndarray)
                else {
                    "units": [*map(str, model.columns)],
                    "values": number_array(model.to_numpy(), "the table of given propensities"),
                }
                if is_labelled(model)
                else model
                if isinstance(model, str)
                else getattr(model, "__qualname__", type(model).__name__)
            ),
            "strata": _as_dict(self.strata) if self.sampler == "stratified" else None,
            "ranks": _as_dict(self.ranks) if self.statistic == "utest" else None,
            "device": str(torch_device(self.device) or "cpu"),
        }


def side_of_code(code: int) -> str:
    """Return the side that programDE calls -1, 0 or 1."""
    if not isinstance(code, Integral) or code not in _SIDES_OF_CODES:
        raise OptionError(f"the side code is {code!r}; give -1 (left), 0 (both) or 1 (right).")
    return _SIDES_OF_CODES[code]


def refuse_idle(name: str, given: Any, is_used: bool, belongs_to: str) -> None:
    """Refuse an option that was given and does nothing.

    Raises
    ------
    OptionError
    """
    if is_used or given is None or (isinstance(given, Mapping) and not given):
        return
    raise OptionError(
        f"{name} does nothing here; it belongs to {belongs_to}. Leave one of them out."
    )


def _as_dict(options: Any) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
