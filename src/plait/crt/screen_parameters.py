"""What is tested in a gene-level screen, and how."""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

from plait.crt.arguments import real_number
from plait.crt.gene_data import GeneScreenData
from plait.crt.gene_design import (
    check_formula,
    default_formula,
    formula_by_assigned,
    left_out_by_default,
)
from plait.crt.gene_tests import GeneTestOptions
from plait.crt.pairs import Pairs
from plait.crt.score_nulls import Stages
from plait.data.words import counted
from plait.errors import InputError, LabelError, OptionError
from plait.numerics.multiple_testing import METHODS

_log = logging.getLogger("plait.crt")

STRATEGIES = ("union", "singleton", "bonferroni")
CONTROL_GROUPS = ("complement", "nt_cells")
APPROXIMATIONS = ("skew_normal", "no_approximation")
_FEW_GENES = 1000
"""Below so many, counts of genes do not say well enough how deep a cell is."""
_FIRST_STAGE, _SECOND_STAGE, _THIRD_STAGE = 499, 4999, 24999


@dataclass(frozen=True, kw_only=True, eq=False)
class ScreenParameters:
    """What is tested, and how; see `plait.crt.gene_screen.GeneScreen.set_parameters`.

    ``is_usual_formula`` says that nobody wrote the formula: its columns that are determined by
    others are left out, and those of a formula that somebody wrote are an error. ``notes`` are what
    can make p-values wrong.
    """

    discovery_pairs: Pairs | None
    positive_control_pairs: Pairs | None
    side: str
    strategy: str
    control_group: str
    mechanism: str
    formula: str
    is_usual_formula: bool
    notes: tuple[str, ...] = ()
    weights: str | None = None
    resampling: str
    approximation: str
    fdr: str
    level: float
    max_resamples: int
    seed: int

    @classmethod
    def of(
        cls,
        data: GeneScreenData,
        *,
        discovery_pairs: Any,
        positive_control_pairs: Any,
        control_group: str | None,
        mechanism: str | None,
        formula: str | None,
        weights: str | None = None,
        **options: Any,
    ) -> "ScreenParameters":
        """Fill in defaults that depend on the data, and refuse what cannot be.

        Raises
        ------
        OptionError, LabelError
            See `plait.crt.gene_screen.GeneScreen.set_parameters`.
        """
        is_low = data.moi == "low"
        if control_group is None:
            control_group = "nt_cells" if is_low else "complement"
        if mechanism is None:
            mechanism = "permutations" if is_low else "crt"
        pairs = []
        for given in (discovery_pairs, positive_control_pairs):
            pairs.append(None if given is None else Pairs.of(given))
            if pairs[-1] is not None:
                pairs[-1].require_known(data)
        adjustable = _without(data, weights)
        used = default_formula(adjustable) if formula is None else formula
        made = cls(
            discovery_pairs=pairs[0],
            positive_control_pairs=pairs[1],
            control_group=control_group,
            mechanism=mechanism,
            formula=used,
            is_usual_formula=formula is None,
            notes=_notes(data, used),
            weights=weights,
            **options,
        )
        made._check(data)
        check_formula(data, made.formula, is_usual=made.is_usual_formula)
        if made.is_usual_formula and pairs != [None, None]:
            for note in (*made.notes, *_left_out(adjustable, used)):
                _log.info("%s", note, extra={"notice": True})
        return made

    def _check(self, data: GeneScreenData) -> None:
        for name, known in (
            ("strategy", STRATEGIES),
            ("control_group", CONTROL_GROUPS),
            ("approximation", APPROXIMATIONS),
        ):
            if getattr(self, name) not in known:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; give one of {', '.join(map(repr, known))}."
                )
        if self.control_group == "nt_cells" and data.moi == "high":
            raise OptionError(
                "control_group is 'nt_cells', but where cells have many guides hardly any has "
                "non-targeting ones alone; give 'complement'."
            )
        if self.control_group == "nt_cells" and not data.targets.is_control.any():
            raise OptionError(
                "control_group is 'nt_cells', but no guide has the target 'non-targeting'. Give "
                "negative controls this target in the table of targets, or give 'complement'."
            )
        if self.weights is not None:
            self._check_weights(data, self.weights)
        if not 0.0 < real_number(self.level, "level") < 1.0:
            raise OptionError(f"level is {self.level}; give a number between 0 and 1.")
        self.test_options(1)  # says what is wrong with the other options
        rates = (*METHODS, "bonferroni", "none")
        if self.fdr not in rates:
            raise OptionError(f"fdr is {self.fdr!r}; give one of {', '.join(rates)}.")

    @staticmethod
    def _check_weights(data: GeneScreenData, name: str) -> None:
        if not isinstance(name, str) or name not in data.covariates or name in data.levels:
            raise LabelError(
                f"weights is {name!r}, which is no covariate of numbers; there are "
                f"{', '.join(name for name in data.covariates if name not in data.levels)}."
            )
        if not (data.covariates[name] > 0.0).all():
            count = int((data.covariates[name] <= 0.0).sum())
            raise InputError(
                f"the weights {name!r} are not positive in {counted(count, 'cell')}; leave cells "
                "of no weight out in quality_control(remove=)."
            )

    def test_options(self, n_pairs: int) -> GeneTestOptions:
        """Return how pairs are tested, if so many are.

        Without an approximation the third stage has 10 (of one side 5) resamples for each that
        the smallest p-value needs: ``10 n_pairs / level``.
        """
        if self.approximation == "skew_normal":
            third = _THIRD_STAGE if self.mechanism == "permutations" else 0
            stages = Stages(_FIRST_STAGE, _SECOND_STAGE, third)
        else:
            each = 10 if self.side == "both" else 5
            stages = Stages(_FIRST_STAGE, 0, math.ceil(each * n_pairs / self.level))
        return GeneTestOptions(
            side=self.side,
            mechanism=self.mechanism,
            resampling=self.resampling,
            stages=stages,
            max_resamples=self.max_resamples,
            seed=self.seed,
        )

    def described(self) -> dict[str, Any]:
        """Return the options as a record of a run holds them."""
        names = (
            "side",
            "strategy",
            "control_group",
            "mechanism",
            "formula",
            "resampling",
            "fdr",
            "level",
            "max_resamples",
            "seed",
        )
        about = {name: getattr(self, name) for name in names}
        if self.resampling == "sceptre_staged":
            about["approximation"] = self.approximation
        if self.weights is not None:
            about["weights"] = self.weights
        return about


def _without(data: GeneScreenData, weights: str | None) -> GeneScreenData:
    """Return the data without the covariate that is the weights, which no default adjusts for."""
    covariates = {name: values for name, values in data.covariates.items() if name != weights}
    return replace(data, covariates=covariates)


def _left_out(data: GeneScreenData, formula: str) -> tuple[str, ...]:
    """Say which covariates were given and are not adjusted for."""
    names = left_out_by_default(data)
    if not names:
        return ()
    return (
        f"not adjusted for, as numbers of 15 or more values: {', '.join(names)}. To adjust for "
        f"them, too, give the formula '~ {' + '.join((formula, *names))}'.",
    )


def _notes(data: GeneScreenData, formula: str) -> tuple[str, ...]:
    """Say that sceptre's covariates of guides are not for small panels of genes."""
    n_genes = len(data.response_names)
    is_small = n_genes < _FEW_GENES and data.moi == "high" and not data.is_assigned
    if not is_small or not isinstance(formula, str) or "grna_n_nonzero" not in formula:
        return ()
    return (
        f"with {n_genes:,} genes and guides in the formula, p-values can be too small (below 1,000 "
        "genes; docs/crt.md). Better is the number of guides assigned: formula "
        f"'{formula_by_assigned(formula)}'.",
    )
