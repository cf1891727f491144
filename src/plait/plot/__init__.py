"""Figures: one function per picture, on arrays and labels, publication-ready as they come.

Every function draws on the Axes it is given or on a new figure, and returns the Axes. Matplotlib is
imported when the first picture is drawn.
"""

from plait.plot.effect_map import effect_map
from plait.plot.forest import forest
from plait.plot.manhattan import manhattan
from plait.plot.pair_violin import pair_violin
from plait.plot.patterns import patterns
from plait.plot.qq import qq
from plait.plot.regional import regional
from plait.plot.screen_cells import (
    cell_histogram,
    cells_per_guide,
    guide_counts,
    guides_per_cell,
    removed_cells,
)
from plait.plot.screen_pairs import fold_changes, pair_quality, power_check
from plait.plot.screen_qq import QQBand, QQCurve, controls_qq, plot_qq_curves, screen_qq
from plait.plot.sharing import sharing
from plait.plot.shrinkage import shrinkage
from plait.plot.style import save_figure
from plait.plot.volcano import volcano
from plait.plot.weights import weights

__all__ = [
    "QQBand",
    "QQCurve",
    "cell_histogram",
    "cells_per_guide",
    "controls_qq",
    "effect_map",
    "fold_changes",
    "forest",
    "guide_counts",
    "guides_per_cell",
    "manhattan",
    "pair_quality",
    "pair_violin",
    "patterns",
    "plot_qq_curves",
    "power_check",
    "qq",
    "regional",
    "removed_cells",
    "save_figure",
    "screen_qq",
    "sharing",
    "shrinkage",
    "volcano",
    "weights",
]
