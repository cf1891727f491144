"""A study of gene expression in several tissues, with known truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TISSUES = ("cortex", "hippocampus", "cerebellum", "liver", "muscle", "blood")
"""The first three are parts of the brain and share effects of their own."""

_SAMPLES = (160, 130, 140, 210, 480, 670)
_KINDS = {"none": 0.80, "all tissues": 0.05, "brain": 0.10, "blood": 0.05}


@dataclass(frozen=True, eq=False)
class TissueStudy:
    """Simulated effects of variants on genes in several tissues.

    Attributes
    ----------
    truth : (J, R) array
        The effects that the study looks for; exactly 0 where there is none.
    bhat, shat : (J, R) arrays
        Estimates and their standard errors.
    V : (R, R) array
        Correlation of the errors (tissues of the same donors).
    kind : (J,) array of str
        Where each effect acts: "none", "all tissues", "brain" or "blood".
    effects : (J,) array of str
    tissues : tuple of str
    """

    truth: Array
    bhat: Array
    shat: Array
    V: Array
    kind: NDArray[np.str_]
    effects: NDArray[np.str_]
    tissues: tuple[str, ...] = TISSUES


def tissue_study(n_effects: int = 20_000, seed: int = 1) -> TissueStudy:
    """Simulate a study of 6 tissues in which 80 % of the effects are null.

    Parameters
    ----------
    n_effects : int
        Number of variant-gene pairs.
    seed : int

    Returns
    -------
    TissueStudy

    Notes
    -----
    Of all effects 5 % act in all tissues (their sizes correlate by 0.8), 10 % in the brain alone
    (0.9) and 5 % in blood alone. Effects are N(0, 0.25^2) in units of the standard deviation of
    expression; standard errors follow from the allele frequency and the number of donors. Errors
    correlate by 0.4 between brain tissues and by 0.1 between all others.
    """
    random = np.random.default_rng(seed)
    width = len(TISSUES)
    names = np.array(list(_KINDS))
    kind = random.choice(names, n_effects, p=list(_KINDS.values()))
    truth = np.zeros((n_effects, width))
    brain, blood = slice(0, 3), slice(width - 1, width)
    for name, where, correlation in (
        ("all tissues", slice(0, width), 0.8),
        ("brain", brain, 0.9),
        ("blood", blood, 0.0),
    ):
        rows = np.flatnonzero(kind == name)
        count = len(range(width)[where])
        common = random.normal(size=(len(rows), 1))
        own = random.normal(size=(len(rows), count))
        truth[rows, where] = 0.25 * (
            np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own
        )
    frequency = random.uniform(0.05, 0.5, size=(n_effects, 1))
    shat = 1.0 / np.sqrt(2.0 * frequency * (1.0 - frequency) * np.array(_SAMPLES))
    V = np.full((width, width), 0.1)
    V[brain, brain] = 0.4
    np.fill_diagonal(V, 1.0)
    bhat = truth + shat * (random.normal(size=(n_effects, width)) @ np.linalg.cholesky(V).T)
    effects = np.array([f"gene{i // 4 + 1}:rs{10_000 + i}" for i in range(n_effects)])
    return TissueStudy(truth, bhat, shat, V, kind, effects)
