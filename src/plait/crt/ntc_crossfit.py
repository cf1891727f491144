"""Cross-fitted p-values of frames: real units and held-out controls against a half of the controls.

`plait.crt.ntc_empirical.ntc_empirical_tests` does the same for a screen, batch by batch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.crt.ntc_null import MatchingOptions, UnitEffects, matched_p_values
from plait.errors import LabelError

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def compute_ntc_empirical_pvals_crossfit(
    beta_real: "DataFrame",
    sig_real: "DataFrame",
    beta_ntcA: "DataFrame",
    sig_ntcA: "DataFrame",
    beta_ntcB: "DataFrame",
    sig_ntcB: "DataFrame",
    matching_cfg: Mapping[str, Any] | None = None,
    two_sided: bool = True,
) -> tuple["DataFrame", "DataFrame", dict[str, Any]]:
    """Return p-values of genes and of half B of the controls, among half A.

    Parameters
    ----------
    beta_real, beta_ntcA, beta_ntcB : (units, K) DataFrame
        Effects.
    sig_real, sig_ntcA, sig_ntcB : (units, features) DataFrame
        Columns ``n1``, ``d`` and, for ``use_pbar``, ``pbar`` of the same units.
    matching_cfg : mapping, optional
        See `plait.crt.ntc_null.MatchingOptions`. Bins are at the quantiles of the genes.
    two_sided : bool
        Whether absolute effects are compared; else large ones are extreme.

    Returns
    -------
    p_real_vs_A, p_ntcB_vs_A : (units, K) DataFrame
    info : dict
        How each of the two was matched.

    Raises
    ------
    LabelError
        A feature is missing, or effects and features are of other units.
    InputTypeError
        An option of matching is unknown or no whole number (also a TypeError).

    Notes
    -----
    ``(1 + count) / (m + 1)`` among the m controls of the unit's bin. Memory is that of the result;
    time O(units K log m).
    """
    real, p, info = _crossfit(
        (beta_real, beta_ntcA, beta_ntcB), (sig_real, sig_ntcA, sig_ntcB), matching_cfg,
        two_sided=two_sided,
    )  # fmt: skip
    import pandas as pd

    programs = beta_real.columns
    of_real = pd.DataFrame(real, beta_real.index, programs)
    return of_real, pd.DataFrame(p, beta_ntcB.index, programs), info


def compute_ntc_empirical_pvals_gene_agg_crossfit(
    beta_real: "DataFrame",
    sig_real: "DataFrame",
    beta_ntcA: "DataFrame",
    sig_ntcA: "DataFrame",
    beta_ntcB: "DataFrame",
    sig_ntcB: "DataFrame",
    matching_cfg: Mapping[str, Any] | None = None,
) -> tuple["Series", "Series", dict[str, Any]]:
    """Return one p-value for each gene and each unit of half B: of its largest absolute effect.

    Parameters
    ----------
    beta_real, sig_real, beta_ntcA, sig_ntcA, beta_ntcB, sig_ntcB, matching_cfg
        See `compute_ntc_empirical_pvals_crossfit`.

    Returns
    -------
    p_real_vs_A, p_ntcB_vs_A : (units,) Series
    info : dict
        How each of the two was matched.

    Raises
    ------
    LabelError, InputTypeError
        See `compute_ntc_empirical_pvals_crossfit`.
    """
    real, p, info = _crossfit(
        (beta_real, beta_ntcA, beta_ntcB), (sig_real, sig_ntcA, sig_ntcB), matching_cfg,
        by_unit=True,
    )  # fmt: skip
    import pandas as pd

    return pd.Series(real[:, 0], beta_real.index), pd.Series(p[:, 0], beta_ntcB.index), info


def _crossfit(
    betas: tuple["DataFrame", "DataFrame", "DataFrame"],
    features: tuple["DataFrame", "DataFrame", "DataFrame"],
    matching: Mapping[str, Any] | None,
    **how: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    options = MatchingOptions.from_mapping(matching)
    real, a, b = (
        _effects(name, beta, sig, options.use_pbar)
        for name, beta, sig in zip(("real", "ntcA", "ntcB"), betas, features, strict=True)
    )
    p_real, of_real = matched_p_values(real, a, real, options, **how)
    p_b, of_b = matched_p_values(b, a, real, options, **how)
    return p_real, p_b, {"real_vs_A": of_real, "ntcB_vs_A": of_b}


def _effects(name: str, beta: "DataFrame", sig: "DataFrame", use_pbar: bool) -> UnitEffects:
    needed = ["n1", "d", *(["pbar"] if use_pbar else [])]
    missing = [column for column in needed if column not in sig.columns]
    if missing:
        raise LabelError(
            f"sig_{name} has no column {missing[0]!r}; it has {', '.join(map(str, sig.columns))}."
        )
    if not beta.index.equals(sig.index):
        raise LabelError(f"beta_{name} and sig_{name} are not of the same units in the same order.")
    n1, d, *pbar = (sig[column].to_numpy(dtype=np.float64) for column in needed)
    effects = beta.to_numpy(dtype=np.float64)
    return UnitEffects(effects, n1.astype(np.int64), d, pbar[0] if use_pbar else None)
