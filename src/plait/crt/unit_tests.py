"""The tests of units: a unit is a set of treated cells, of a target or of a group of guides.

What all units share (residuals or ranks, strata) is made once in a `UnitTester`. The numbers of a
unit depend on its name, its cells and the options alone, not on the units it is tested with.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.analytic import analytic_p_values, analytic_table, rank_analytic_table
from plait.crt.composition import floor_usage
from plait.crt.data import CRTInputs
from plait.crt.device_draws import DeviceTable, null_effects_on_device
from plait.crt.given_propensities import GivenPropensities
from plait.crt.null_spread import bernoulli_spread, stratified_spread
from plait.crt.null_statistics import (
    NullStatistics,
    null_effects,
    null_effects_of_block,
    null_rank_biserial,
    null_rank_biserial_of_block,
    rank_biserial_of_index_lists,
    rank_table,
    residual_table,
)
from plait.crt.options import CRTOptions
from plait.crt.p_values import SkewNormalPValues, SkewNormalTests, empirical_p_values
from plait.crt.propensity import PropensityDesign, PropensityModel, fit_propensity_logistic
from plait.crt.ranks import rank_columns, usage_to_rank
from plait.crt.resampling import BernoulliResampler, Resampler, StratifiedResampler
from plait.crt.seeds import UnitStream
from plait.crt.staged import TIE, set_ties, staged_p_values, tie_of_effects
from plait.crt.statistic import ols_of_block, sums_of_squares
from plait.crt.strata import Strata, Stratification, stratification_values
from plait.errors import DataWarning
from plait.execution.devices import torch_device

Array = NDArray[np.float64]


class _Unit(NamedTuple):
    """A unit's name, treated cells and propensities."""

    name: str
    cells: NDArray[np.integer]
    probabilities: Array


class UnitTester:
    """Tests units of one screen.

    Parameters
    ----------
    inputs : CRTInputs
    options : CRTOptions

    Warns
    -----
    DataWarning
        Strata were to keep batches apart and there are no batches.

    Raises
    ------
    InputError
        An option does not fit the screen: see `plait.crt.strata`, `plait.crt.ranks` and
        `plait.crt.given_propensities`.
    """

    def __init__(self, inputs: CRTInputs, options: CRTOptions) -> None:
        self.inputs, self.options = inputs, options
        self._given = GivenPropensities.of_model(
            options.propensity_model, inputs.cell_names, inputs.units
        )
        # What fits propensities itself takes plain covariates.
        is_fitted = options.propensity_model is fit_propensity_logistic
        self.covariates = PropensityDesign.of(inputs.C) if is_fitted else inputs.C
        self.stratification = (
            _stratification(inputs, options) if options.sampler == "stratified" else None
        )
        if options.statistic == "utest":
            ranks = rank_columns(
                _ranked(inputs, options), options.ranks.rank_method, options.ranks.rank_dtype
            )
            self.table = rank_table(ranks)
            if options.method == "analytic":
                self.analytic = rank_analytic_table(ranks.astype(np.float64), self.table)
        else:
            self.table = residual_table(inputs.residuals, inputs.basis)
            self._squares = sums_of_squares(inputs.residuals)
            if options.method == "analytic":
                self.analytic = analytic_table(inputs.residuals, inputs.basis, self.table)
        device = torch_device(options.device)
        self.device_table = None if device is None else DeviceTable.of(self.table, device)

    def propensity_model_of(self, names: Sequence[str]) -> PropensityModel:
        """Return the propensity model of some units; given propensities are found by name.

        Raises
        ------
        LabelError
            Propensities are given, and not of one of the units (also a KeyError).
        """
        model = self.options.propensity_model
        return model if self._given is None else self._given.of(names)

    def require_propensities(self, names: Sequence[str]) -> None:
        """Refuse units for which no propensities are given, where they are given."""
        if self._given is not None:
            self._given.require(names)

    def found_types(self) -> dict[str, str]:
        """Return the type of each array that `test` finds ("str": text)."""
        types = dict.fromkeys(("beta", "p", "log10p", "expected_treated"), "float64")
        types |= {"p_method": "str", "status": "str", "n_treated": "int64"}
        if self.options.statistic == "ols":
            types |= dict.fromkeys(("se", "null_sd", "denominator"), "float64")
        if self.stratification is not None:
            types |= dict.fromkeys(
                ("n_strata", "n_informative_strata", "n_propensity_bins"), "int64"
            )
            types["uninformative_share"] = "float64"
        types["n_resamples"] = "int64"
        if self.options.method == "analytic":
            types["p_flag"] = "str"
        if self.options.is_resampled:
            types["p_raw"] = "float64"
        if self.options.method == "skew-normal":
            types |= {"p_skew": "float64", "skew_parameters": "float64", "skew_status": "str"}
        return types

    def test(
        self, names: Sequence[str], treated: csc_array, probabilities: Array
    ) -> dict[str, NDArray[Any]]:
        """Return everything that is found of some units.

        Parameters
        ----------
        names : sequence of str
        treated : (cells, units) csc_array
        probabilities : (cells, units) array
            Propensities.

        Returns
        -------
        dict of arrays
            By the names of fields of `plait.crt.results.CRTResult`, units first.
        """
        shape = (len(names), self.inputs.n_programs)
        found = self._observed(treated)
        found |= {
            "p": np.ones(shape),
            "p_method": np.full(shape, "none", dtype="<U12"),
            "status": np.where(found.pop("is_defined"), "ok", "degenerate").astype("<U12"),
            "expected_treated": probabilities.sum(axis=0),
            "n_resamples": np.zeros(shape, dtype=np.int64),
        }
        units = [
            _Unit(name, treated.indices[begin:end], probabilities[:, j])
            for j, (name, (begin, end)) in enumerate(
                zip(names, pairwise(treated.indptr), strict=True)
            )
        ]
        strata = self._strata(units, found)
        if self.options.method == "analytic":
            self._analytic(units, strata, probabilities, found)
            return found
        if self.options.statistic == "ols":
            found["null_sd"] = self._null_sd(probabilities, strata)
        if self.options.method == "adaptive":
            self._adaptive(units, strata, found)
        else:
            self._resampled(units, strata, found)
        found["log10p"] = np.log10(found["p"])
        return found

    def null_statistics(
        self, name: str, cells: NDArray[np.integer], probabilities: Array
    ) -> NullStatistics:
        """Return one unit's statistic in every resample, (B, programs).

        Parameters
        ----------
        name : str
            Names its random stream.
        cells : (treated,) array of int
        probabilities : (cells,) array
            Propensities.
        """
        unit = _Unit(name, cells, probabilities)
        strata = (
            None
            if self.stratification is None
            else self.stratification.strata(probabilities, cells)
        )
        return self._null(unit, strata)

    def _observed(self, treated: csc_array) -> dict[str, NDArray[Any]]:
        n_treated = np.diff(treated.indptr).astype(np.int64)
        is_mixed = (n_treated > 0) & (n_treated < self.inputs.n_cells)
        if self.options.statistic == "utest":
            starts = treated.indptr.astype(np.int64)
            observed = rank_biserial_of_index_lists(self.table, starts, treated.indices)
            return {
                "beta": np.where(is_mixed[:, None], observed.values, 0.0),
                "n_treated": n_treated,
                "is_defined": is_mixed,
            }
        residuals, basis = self.inputs.residuals, self.inputs.basis
        effects = ols_of_block(residuals, basis, treated, self._squares)
        return {
            "beta": effects.beta,
            "se": effects.se,
            "n_treated": n_treated,
            "denominator": effects.denominator,
            "is_defined": is_mixed & np.isfinite(effects.se).any(axis=1),
        }

    def _strata(
        self, units: Sequence[_Unit], found: dict[str, NDArray[Any]]
    ) -> list[Strata | None]:
        """Return the strata of units, and write down what they leave to vary."""
        if self.stratification is None:
            return [None] * len(units)
        strata = [self.stratification.strata(u.probabilities, u.cells) for u in units]
        informative = np.array([s.n_informative for s in strata], dtype=np.int64)
        found["status"][(found["status"] == "ok") & (informative == 0)] = "no_variation"
        found["n_strata"] = np.array([len(s.sizes) for s in strata], dtype=np.int64)
        found["n_informative_strata"] = informative
        found["n_propensity_bins"] = np.array([s.propensity_bins for s in strata], dtype=np.int64)
        found["uninformative_share"] = np.array([s.uninformative_treated_share for s in strata])
        return list(strata)

    def _analytic(
        self,
        units: Sequence[_Unit],
        strata: Sequence[Strata | None],
        probabilities: Array,
        found: dict[str, NDArray[Any]],
    ) -> None:
        """Fill in the p-values of infinitely many resamples."""
        ok = np.flatnonzero(found["status"] == "ok")
        known = [s for j in ok.tolist() if (s := strata[j]) is not None]
        exact = analytic_p_values(
            self.analytic,
            found["beta"][ok],
            probabilities if len(ok) == len(units) else probabilities[:, ok],  # all need no copy
            [units[j].name for j in ok.tolist()],
            strata=known or None,
            side=self.options.side,
            seed=self.options.seed,
            bulk_above=self.options.bulk_above,
            exceedances=self.options.exceedances,
            max_resamples=self.options.max_resamples,
        )
        found["p_flag"] = np.full(found["p"].shape, "none", dtype="<U14")
        found["p_flag"][ok], found["n_resamples"][ok] = exact.flag, exact.resamples
        found["log10p"] = np.zeros(found["p"].shape)
        found["p"][ok], found["log10p"][ok] = exact.p_value, exact.log10_p
        found["p_method"][ok] = exact.method
        if self.options.statistic == "ols":
            found["null_sd"] = np.full(found["p"].shape, np.inf)
            found["null_sd"][ok] = exact.null_sd

    def _adaptive(
        self,
        units: Sequence[_Unit],
        strata: Sequence[Strata | None],
        found: dict[str, NDArray[Any]],
    ) -> None:
        """Fill in p-values that are counted in as many resamples as each needs."""
        is_rank = self.options.statistic == "utest"
        draw = null_rank_biserial_of_block if is_rank else null_effects_of_block
        for j in np.flatnonzero(found["status"] == "ok").tolist():
            null_of_block = partial(draw, self.table, self._resampler(units[j], strata[j]))
            staged = staged_p_values(
                found["beta"][j],
                null_of_block,
                side=self.options.side,
                exceedances=self.options.exceedances,
                max_resamples=self.options.max_resamples,
                tie=TIE if is_rank else _tie(found, j),
            )
            found["p"][j], found["p_method"][j] = staged.p_value, "monte carlo"
            found["n_resamples"][j] = staged.resamples

    def _null_sd(self, probabilities: Array, strata: Sequence[Strata | None]) -> Array:
        residuals, basis = self.inputs.residuals, self.inputs.basis
        known = [s for s in strata if s is not None]
        if known:
            return stratified_spread(residuals, basis, known)
        return bernoulli_spread(residuals, basis, probabilities)

    def _resampled(
        self,
        units: Sequence[_Unit],
        strata: Sequence[Strata | None],
        found: dict[str, NDArray[Any]],
    ) -> None:
        """Fill in the p-values that are made from a fixed number of resamples."""
        shape = found["p"].shape
        is_calibrated = self.options.method == "skew-normal"
        found["p_raw"] = np.ones(shape)
        if is_calibrated:
            found |= {
                "p_skew": np.ones(shape),
                "skew_parameters": np.full((*shape, 3), np.nan),
                "skew_status": np.full(shape, "degenerate", dtype="<U10"),
            }
        if self.options.resamples < 1:
            found["status"][:] = "degenerate"
            found["beta"][:] = 0.0
        ok = np.flatnonzero(found["status"] == "ok").tolist()
        beta, is_exact = found["beta"], self.options.statistic == "utest"  # sums of ranks
        tests = SkewNormalTests(self.options.calibrated_side or self.options.side)
        added = []
        for j in ok:
            null = self._null(units[j], strata[j]).tested
            found["n_resamples"][j] = len(null)
            if not len(null):
                continue  # compared with nothing, p is 1
            if not is_exact:
                set_ties(null, beta[j], _tie(found, j))
            found["p_raw"][j] = empirical_p_values(beta[j], null, side=self.options.side)
            if is_calibrated:
                tests.add(beta[j], null)
                added.append(j)
        found["p_method"][ok] = "empirical"
        if is_calibrated:
            found["p_skew"][ok] = found["p_raw"][ok]
        if added:
            self._calibrated(tests.p_values(), added, found)
        found["p"] = found["p_skew"] if is_calibrated else found["p_raw"]

    def _calibrated(
        self, fitted: SkewNormalPValues, units: Sequence[int], found: dict[str, NDArray[Any]]
    ) -> None:
        """Fill in the skew-normal p-values of some units."""
        shape = (len(units), self.inputs.n_programs)
        found["p_skew"][units] = fitted.p_values.reshape(shape)
        found["skew_parameters"][units] = fitted.parameters.reshape(*shape, 3)
        found["skew_status"][units] = fitted.status.reshape(shape)
        is_fitted = found["skew_status"][units] == "ok"
        found["p_method"][units] = np.where(is_fitted, "skew-normal", "empirical")

    def _null(self, unit: _Unit, strata: Strata | None) -> NullStatistics:
        if self.device_table is not None:
            stream = UnitStream(self.options.seed, unit.name)
            return null_effects_on_device(
                self.device_table, unit.probabilities, stream, self.options.resamples
            )
        draw = null_rank_biserial if self.options.statistic == "utest" else null_effects
        return draw(self.table, self._resampler(unit, strata), self.options.resamples)

    def _resampler(self, unit: _Unit, strata: Strata | None) -> Resampler:
        stream = UnitStream(self.options.seed, unit.name)
        if strata is None:
            return BernoulliResampler(unit.probabilities, stream)
        return StratifiedResampler(strata.stratum, strata.treated, stream)


def _tie(found: dict[str, NDArray[Any]], unit: int) -> float:
    return tie_of_effects(found["n_treated"][unit], found["denominator"][unit])


def _stratification(inputs: CRTInputs, options: CRTOptions) -> Stratification:
    batch, burden = stratification_values(
        options.strata, inputs.covar_df_raw, inputs.batch_raw, inputs.batch_key
    )
    if options.strata.stratify_by_batch and batch is None:
        warnings.warn(
            f"there is no covariate {options.strata.batch_key!r}: cells are stratified by "
            "propensity without batches. Give the covariates as a DataFrame with that column, or "
            "stratify_by_batch=False.",
            DataWarning,
            stacklevel=3,
        )
    return Stratification(options.strata, batch, burden)


def _ranked(inputs: CRTInputs, options: CRTOptions) -> NDArray[np.floating]:
    """Return the outcome that the U statistic ranks."""
    use = options.ranks.use
    if use == "clr":
        return inputs.Y
    if use == "residual":
        return inputs.residuals
    quantile = inputs.usage_eps_quantile
    usage = inputs.usage.astype(np.float64)
    return floor_usage(usage, inputs.eps) if quantile is None else usage_to_rank(usage, quantile)
