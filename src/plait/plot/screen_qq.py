"""QQ curves of perturbation screens: negative controls beside the genes."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import InputError, ShapeError
from plait.plot.style import COLOURS, GREY, axes_for, save_figure, styled


def plot_qq_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    out_png: str | os.PathLike[str],
    title: str,
    envelope: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> None:
    """Draw QQ curves into a file, which is replaced if it exists.

    Parameters
    ----------
    curves : mapping
        Label to expected and observed ``-log10 p``, as of `plait.crt.qq.qq_coords`; at most 8.
    out_png : str or path
        Its folder is made if need be.
    title : str
    envelope : tuple of three arrays, optional
        Expected ``-log10 p`` and the band around it, as of `plait.crt.qq.bootstrap_qq_envelope`.

    Raises
    ------
    InputError
        There are no curves, too many, or the lengths of one differ.
    """
    if not 1 <= len(curves) <= len(COLOURS):
        raise InputError(f"{len(curves)} QQ curves were given; 1 to {len(COLOURS)} can be drawn.")
    Path(out_png).parent.mkdir(parents=True, exist_ok=True)
    with styled() as plt:
        ax = axes_for(plt, None, 6.0, 5.0)
        if envelope is not None:
            x, low, high = (np.asarray(values, dtype=np.float64) for values in envelope)
            ax.fill_between(
                x, low, high, color=GREY, alpha=0.25, linewidth=0, label="bootstrap envelope"
            )
        farthest = 0.0
        for colour, (label, (expected, observed)) in zip(COLOURS, curves.items(), strict=False):
            x, y = (np.asarray(values, dtype=np.float64) for values in (expected, observed))
            if x.shape != y.shape or x.ndim != 1 or not len(x):
                raise ShapeError(f"the curve {label!r} has shapes {x.shape} and {y.shape}.")
            farthest = max(farthest, float(x.max()))
            ax.scatter(x, y, s=12, color=colour, linewidths=0, alpha=0.8, label=label, zorder=3)
        ax.plot([0, farthest], [0, farthest], color=GREY, linewidth=0.9, zorder=2)
        ax.set(xlim=(0, None), ylim=(0, None), title=title)
        ax.set_xlabel("expected $-\\log_{10} p$")
        ax.set_ylabel("observed $-\\log_{10} p$")
        ax.legend(loc="upper left", handletextpad=0.3)
        save_figure(ax, out_png, overwrite=True)
