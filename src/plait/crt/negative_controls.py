"""Groups of negative-control guides that are like the groups of guides of real genes."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from plait.crt.arguments import require_made_by, whole_number
from plait.crt.guides import as_names, to_csc_matrix
from plait.data.words import counted
from plait.errors import DataWarning, InputError, InputTypeError, ShapeError

NTCGroups = dict[str, list[str]]
Signature = Sequence[int]


class MatchedGroups(NTCGroups):
    """Groups of control guides, as a dictionary, that know in how many bins they were matched.

    Attributes
    ----------
    n_bins : int
        Bins of guide frequency; fewer than were asked for where controls filled no gene's.
    """

    n_bins: int = 0


def guide_frequency(G: Any, guide_names: Sequence[str]) -> dict[str, float]:
    """Return the share of cells that carry each guide.

    Parameters
    ----------
    G : (cells, guides) array, sparse matrix or DataFrame
        Nonzero entries are carriers; how large they are does not matter.
    guide_names : (guides,) sequence of str

    Returns
    -------
    dict
        Guide to share, in the order of the guides.

    Raises
    ------
    InputError
        The names do not match the columns, there are no cells, or entries are negative or not
        finite.
    InputTypeError
        Entries are no numbers, or the names no sequence (also a TypeError).
    """
    carried = to_csc_matrix(G)
    guide_names = as_names(guide_names)
    if not carried.shape[0]:
        raise InputError("there are no cells, of which guides have a share.")
    if carried.shape[1] != len(guide_names):
        raise ShapeError(
            f"the guides have {counted(len(guide_names), 'name')} and "
            f"{counted(carried.shape[1], 'column')}."
        )
    counts = np.diff(carried.indptr) / carried.shape[0]
    return dict(zip(guide_names, counts.tolist(), strict=True))


def build_ntc_group_inputs(
    inputs: Any,
    ntc_label: str | Iterable[str] = "NTC",
    group_size: int = 6,
    n_bins: int = 20,
) -> tuple[list[str], dict[str, float], dict[str, int], list[list[int]]]:
    """Return what groups of control guides are drawn from and matched to.

    Parameters
    ----------
    inputs : CRTInputs or alike
        Has ``G``, ``guide_names`` and ``guide2gene``.
    ntc_label : str or iterable of str
        Genes that stand for negative controls.
    group_size : int
        Guides of a group.
    n_bins : int
        Bins of guide frequency, at the quantiles of the real guides' frequencies.

    Returns
    -------
    ntc_guides : list of str
        In the order of the guides.
    guide_freq : dict
        Guide to the share of cells that carry it.
    guide_to_bin : dict
        Guide to bin; a frequency at an edge is in the lower bin.
    real_gene_bin_sigs : list of list of int
        Bins of the ``group_size`` rarest guides of every real gene with so many.

    Raises
    ------
    InputError
        No guide is of a real gene, or no real gene has ``group_size`` guides.
    OptionError, InputTypeError
        ``group_size`` or ``n_bins`` is below 1, or no whole number.
    """
    whole_number(group_size, "group_size", least=1)
    whole_number(n_bins, "n_bins", least=1)
    require_made_by(inputs, "inputs", ("G", "guide_names", "guide2gene"), "prepare_crt_inputs")
    labels = set(as_names(ntc_label))
    frequency = guide_frequency(inputs.G, inputs.guide_names)
    genes = {g: inputs.guide2gene[g] for g in inputs.guide_names if g in inputs.guide2gene}
    controls = [guide for guide, gene in genes.items() if gene in labels]
    real: dict[str, list[str]] = {}
    for guide, gene in genes.items():
        if gene not in labels:
            real.setdefault(gene, []).append(guide)
    if not real:
        raise InputError(f"all guides with a gene are of the controls {sorted(labels)}.")
    values = [frequency[guide] for guides in real.values() for guide in guides]
    inner = np.quantile(values, np.linspace(0, 1, n_bins + 1))[1:-1]
    found = np.searchsorted(inner, list(frequency.values()), side="left")
    bins = dict(zip(frequency, found.tolist(), strict=True))
    signatures = [
        [bins[guide] for guide in sorted(guides, key=frequency.__getitem__)[:group_size]]
        for _, guides in sorted(real.items())
        if len(guides) >= group_size
    ]
    if not signatures:
        most = max(map(len, real.values()))
        raise InputError(f"no real gene has group_size={group_size} guides; the most are {most}.")
    return controls, frequency, bins, signatures


def make_ntc_groups_matched_by_freq(
    ntc_guides: Sequence[str],
    ntc_freq: Mapping[str, float],
    real_gene_bin_sigs: Sequence[Signature],
    guide_to_bin: Mapping[str, int],
    group_size: int = 6,
    seed: int = 0,
    max_groups: int | None = None,
    drop_remainder: bool = True,
    max_attempts: int = 100,
) -> NTCGroups:
    """Draw disjoint groups of control guides, each with the frequency bins of some real gene.

    Where no gene's bins can be filled, neighbouring bins are merged in pairs until some can, with
    a warning.

    Parameters
    ----------
    ntc_guides : sequence of str
    ntc_freq : mapping
        Guide to frequency; every control needs one.
    real_gene_bin_sigs : sequence of sequence of int
    guide_to_bin : mapping
        These four from `build_ntc_group_inputs`.
    group_size : int
        Guides of a group.
    seed : int
    max_groups : int, optional
        Default as many as there are guides for.
    drop_remainder : bool
        Whether drawing may end after ``max_attempts`` genes in a row whose bins cannot be filled.
        It always ends where no gene's can.
    max_attempts : int

    Returns
    -------
    dict
        ``ntc_0``, ``ntc_1``, ... to the names of their guides; its attribute ``n_bins`` is the
        number of bins in which they were matched.

    Raises
    ------
    InputError
        Controls are fewer than ``group_size`` or unknown, or a signature is of another size.
    OptionError, InputTypeError
        A number is too small, or a value of another type.

    Warns
    -----
    DataWarning
        The controls fill no gene's bins; neighbouring bins were merged.

    Notes
    -----
    The rule of programDE: a gene is drawn at random, and its bins are filled with the controls that
    are left, until ``max_attempts`` genes in a row cannot be. Groups of one call share no guide.
    """
    bins, signatures, n_bins = _feasible_bins(
        ntc_guides, ntc_freq, real_gene_bin_sigs, guide_to_bin, group_size
    )
    return _draw_groups(bins, signatures, n_bins, seed, max_groups, drop_remainder, max_attempts)


def make_ntc_groups_ensemble(
    ntc_guides: Sequence[str],
    ntc_freq: Mapping[str, float],
    real_gene_bin_sigs: Sequence[Signature],
    guide_to_bin: Mapping[str, int],
    n_ensemble: int = 10,
    seed0: int = 0,
    group_size: int = 6,
    max_groups: int | None = None,
    drop_remainder: bool = True,
    max_attempts: int = 100,
) -> list[NTCGroups]:
    """Draw several sets of groups, of seeds ``seed0``, ``seed0 + 1``, ...

    Parameters
    ----------
    ntc_guides, ntc_freq, real_gene_bin_sigs, guide_to_bin
        From `build_ntc_group_inputs`.
    n_ensemble : int
        Sets.
    seed0 : int
    group_size, max_groups, drop_remainder, max_attempts
        See `make_ntc_groups_matched_by_freq`.

    Returns
    -------
    list of dict
        All sets have the same bins.

    Raises
    ------
    InputError
        See `make_ntc_groups_matched_by_freq`.
    """
    whole_number(seed0, "seed0", least=0)
    bins, signatures, n_bins = _feasible_bins(
        ntc_guides, ntc_freq, real_gene_bin_sigs, guide_to_bin, group_size
    )
    return [
        _draw_groups(bins, signatures, n_bins, seed0 + e, max_groups, drop_remainder, max_attempts)
        for e in range(whole_number(n_ensemble, "n_ensemble", least=1))
    ]


def _feasible_bins(
    guides: Sequence[str],
    frequency: Mapping[str, float],
    signatures: Sequence[Signature],
    guide_to_bin: Mapping[str, int],
    group_size: int,
) -> tuple[dict[str, int], list[list[int]], int]:
    """Return bins of the guides, signatures of which some can be filled, and how many bins."""
    whole_number(group_size, "group_size", least=1)
    for name, value, kind in (
        ("ntc_freq", frequency, Mapping), ("guide_to_bin", guide_to_bin, Mapping),
        ("ntc_guides", guides, Sequence), ("real_gene_bin_sigs", signatures, Sequence),
    ):  # fmt: skip
        if isinstance(value, str) or not isinstance(value, kind):
            raise InputTypeError(
                f"{name} is of type {type(value).__name__}; give a {kind.__name__.lower()}."
            )
    unknown = [guide for guide in guides if guide not in guide_to_bin or guide not in frequency]
    if unknown:
        raise InputError(f"control guides without a frequency or bin: {unknown[:5]}.")
    if len(set(guides)) != len(guides):
        raise InputError("control guides are named more than once.")
    if len(guides) < group_size:
        raise InputError(
            f"{counted(len(guides), 'control guide')} cannot make a group of {group_size}."
        )
    wrong = {len(signature) for signature in signatures} - {group_size}
    if wrong or not signatures:
        raise InputError(f"signatures must be of group_size={group_size}, and are of {wrong or 0}.")
    bins, own = {g: int(guide_to_bin[g]) for g in guides}, [list(map(int, s)) for s in signatures]
    given = max(guide_to_bin.values()) + 1
    left = given
    while not any(_fits(Counter(s), Counter(bins.values())) for s in own):
        # Halving quantile bins keeps every second edge, which merges neighbours.
        bins = {guide: b // 2 for guide, b in bins.items()}
        own, left = [[b // 2 for b in s] for s in own], (left + 1) // 2
    if left < given:
        warnings.warn(
            f"the control guides fill no real gene's {given} frequency bins; groups were matched "
            f"in {counted(left, 'bin')}.",
            DataWarning,
            stacklevel=3,
        )
    return bins, own, left


def _fits(needed: Counter[int], at_hand: Mapping[int, int]) -> bool:
    return all(at_hand.get(b, 0) >= count for b, count in needed.items())


def _draw_groups(
    bins: Mapping[str, int],
    signatures: Sequence[Signature],
    n_bins: int,
    seed: int,
    max_groups: int | None,
    drop_remainder: bool,
    max_attempts: int,
) -> MatchedGroups:
    random = np.random.default_rng(whole_number(seed, "the seed", least=0))
    whole_number(max_attempts, "max_attempts", least=1)
    if max_groups is not None:
        whole_number(max_groups, "max_groups", least=0)
    pools: dict[int, list[str]] = {}
    for guide, b in bins.items():
        pools.setdefault(b, []).append(guide)
    for pool in pools.values():
        random.shuffle(pool)
    left = {b: len(pool) for b, pool in pools.items()}
    needs = [Counter(signature) for signature in signatures]
    groups = MatchedGroups()
    groups.n_bins = n_bins
    failures = 0
    while max_groups is None or len(groups) < max_groups:
        drawn = int(random.integers(0, len(needs)))
        if _fits(needs[drawn], left):
            group = []
            for b in signatures[drawn]:
                group.append(pools[b][len(pools[b]) - left[b]])
                left[b] -= 1
            groups[f"ntc_{len(groups)}"] = group
            failures = 0
            continue
        failures += 1
        if drop_remainder and failures >= max_attempts:
            break
        if not any(_fits(needed, left) for needed in needs):
            break
    return groups
