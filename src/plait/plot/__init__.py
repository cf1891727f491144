"""Figures: one function per picture, on arrays and labels, publication-ready as they come.

Every function draws on the Axes it is given or on a new figure, and returns the Axes. Matplotlib is
imported when the first picture is drawn.
"""

from plait.plot.effect_map import effect_map
from plait.plot.forest import forest
from plait.plot.manhattan import manhattan
from plait.plot.patterns import patterns
from plait.plot.qq import qq
from plait.plot.regional import regional
from plait.plot.screen_qq import QQBand, QQCurve, controls_qq, plot_qq_curves, screen_qq
from plait.plot.sharing import sharing
from plait.plot.shrinkage import shrinkage
from plait.plot.style import save_figure
from plait.plot.volcano import volcano
from plait.plot.weights import weights

__all__ = [
    "QQBand",
    "QQCurve",
    "controls_qq",
    "effect_map",
    "forest",
    "manhattan",
    "patterns",
    "plot_qq_curves",
    "qq",
    "regional",
    "save_figure",
    "screen_qq",
    "sharing",
    "shrinkage",
    "volcano",
    "weights",
]
