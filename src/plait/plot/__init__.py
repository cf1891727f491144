"""Figures: one function per picture, on arrays and labels, publication-ready as they come."""

from plait.plot.forest import forest
from plait.plot.patterns import pattern
from plait.plot.sharing import sharing
from plait.plot.shrinkage import shrinkage
from plait.plot.weights import weights

__all__ = ["forest", "pattern", "sharing", "shrinkage", "weights"]
