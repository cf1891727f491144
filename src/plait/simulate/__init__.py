"""Simulators with known truth, one module per kind of data."""

from plait.simulate.cohort import Cohort, cohort
from plait.simulate.effects import (
    sim_contrast1,
    sim_contrast2,
    simple_sims,
    simple_sims2,
    simulate_effects,
)
from plait.simulate.screen import make_sceptre_style_synth
from plait.simulate.screen_counts import guide_umi_counts, make_count_screen
from plait.simulate.small_screen import make_synthetic_adata

__all__ = [
    "Cohort",
    "cohort",
    "guide_umi_counts",
    "make_count_screen",
    "make_sceptre_style_synth",
    "make_synthetic_adata",
    "sim_contrast1",
    "sim_contrast2",
    "simple_sims",
    "simple_sims2",
    "simulate_effects",
]
