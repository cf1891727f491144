"""Pairs of negative controls that look like those of a discovery: groups of their guides."""

import logging
import math
from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import whole_number
from plait.crt.gene_data import GuideTargets
from plait.data.words import counted
from plait.errors import InputError, LabelError, OptionError

_log = logging.getLogger("plait.crt")

_MOST_ENUMERATED = 100
_FEWEST_GROUPS = 100
_SPARE = 5.0
"""So many times the groups that are needed are made, where only some can be tested."""
_ATTEMPTS = 50
_SELECTION = 7
"""The key of the stream that chooses groups and pairs."""


def controls_needed(control_group: str) -> int:
    """Return how many non-targeting guides are needed to test some: others are the controls."""
    return 2 if control_group == "nt_cells" else 1


def control_guides(targets: GuideTargets, control_group: str) -> NDArray[np.intp]:
    """Return the columns of the guides that groups are made of.

    Raises
    ------
    InputError
        There are too few: one is needed, or two where others are what cells are compared with.
    """
    controls = np.flatnonzero(targets.is_control)
    needed = controls_needed(control_group)
    if len(controls) < needed:
        raise InputError(
            f"there {'is' if len(controls) == 1 else 'are'} "
            f"{counted(len(controls), 'non-targeting guide')}; the calibration check needs at "
            f"least {needed}."
        )
    return controls


def control_group_size(targets: GuideTargets, most: int) -> int:
    """Return the median number of guides of a target, at least 1 and at most ``most``."""
    names = targets.targets[~targets.is_control]
    if not len(names):
        return 1
    counts = np.unique(names, return_counts=True)[1]
    return max(1, min(round(float(np.median(counts))), most))


def control_groups(
    n_guides: int, size: int, wanted: int, seed: int, kept: int = 0
) -> list[tuple[int, ...]]:
    """Return distinct groups of negative controls.

    Parameters
    ----------
    n_guides : int
        Guides that are negative controls.
    size : int
        Guides of a group.
    wanted : int
        Groups to make where there are more than 100.
    seed : int
    kept : int
        Guides that must be left, to be compared with.

    Returns
    -------
    list of tuple of int
        All groups if there are at most 100, else as many distinct ones as are wanted (or exist),
        ascending inside.

    Raises
    ------
    OptionError
        There are not as many guides as a group has.
    """
    if not 1 <= whole_number(size, "group_size") <= n_guides - kept:
        raise OptionError(
            f"a group has {counted(size, 'guide')}, but the screen has "
            f"{counted(n_guides, 'negative control')}"
            + (f", of which {kept} must be left to compare with." if kept else ".")
        )
    possible = math.comb(n_guides, size)
    if possible <= max(_MOST_ENUMERATED, wanted):
        return list(combinations(range(n_guides), size))
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SELECTION, 0)))
    chosen: dict[tuple[int, ...], None] = {}
    for _ in range(_ATTEMPTS * wanted):
        if len(chosen) == wanted:
            break
        chosen[tuple(sorted(random.choice(n_guides, size, replace=False).tolist()))] = None
    return list(chosen)


def groups_wanted(n_pairs: int, share_passing: float, n_genes: int) -> int:
    """Return how many groups to make for so many pairs, given the share that can be tested."""
    return max(_FEWEST_GROUPS, math.ceil(_SPARE * n_pairs / max(share_passing * n_genes, 1e-9)))


def choose_pairs(passing: NDArray[np.bool_], n_pairs: int, seed: int) -> NDArray[np.intp]:
    """Return the places of so many of the pairs that can be tested, ascending.

    Fewer where there are fewer, which is logged.
    """
    places = np.flatnonzero(passing)
    if len(places) <= n_pairs:
        if len(places) < n_pairs:
            _log.info("only %d of %d pairs of negative controls can be made", len(places), n_pairs)
        return places
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SELECTION, 1)))
    return np.sort(random.choice(places, n_pairs, replace=False))


def groups_of_names(names: Iterable[str], controls: NDArray[np.str_]) -> dict[str, tuple[int, ...]]:
    """Return the guides (places among the negative controls) of names joined by "&".

    Raises
    ------
    LabelError
        A guide is no negative control.
    InputError
        A guide occurs twice in a group.
    """
    places = {name: i for i, name in enumerate(controls.tolist())}
    groups: dict[str, tuple[int, ...]] = {}
    for name in dict.fromkeys(names):
        guides = name.split("&")
        if unknown := [guide for guide in guides if guide not in places]:
            raise LabelError(f"{unknown[0]!r} of {name!r} is no guide that is a negative control.")
        if len(set(guides)) < len(guides):
            raise InputError(f"a guide occurs twice in {name!r}.")
        groups[name] = tuple(places[guide] for guide in guides)
    return groups
