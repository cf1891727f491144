"""What flows between the parts of plait: validated once at the door, then only read."""

from plait.data.effects import Effects
from plait.data.summary_statistics import SummaryStatistics

__all__ = [
    "Effects",
    "SummaryStatistics",
]
