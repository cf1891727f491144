"""Simulators with known truth, one module per kind of data."""

from plait.simulate.cohort import Cohort, cohort
from plait.simulate.effects import (
    sim_contrast1,
    sim_contrast2,
    simple_sims,
    simple_sims2,
    simulate_effects,
)

__all__ = [
    "Cohort",
    "cohort",
    "sim_contrast1",
    "sim_contrast2",
    "simple_sims",
    "simple_sims2",
    "simulate_effects",
]
