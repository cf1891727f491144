"""What flows between the parts of plait: validated once at the door, then only read."""

from plait.data.effects import Effects

__all__ = ["Effects"]
