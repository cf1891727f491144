"""Random streams of units: the same for any number of threads, any order and any other units.

A stream belongs to a unit's name and to a block of resamples, never to a worker or a position:
``SeedSequence(base_seed, spawn_key=(method, key of the name, block))`` feeds a PCG64DXSM. Python's
own string hash is salted anew in every process and is not used.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

RESAMPLES_PER_BLOCK = 512
"""Resamples that share one stream.

A result with more resamples has those of a result with fewer as its first ones. The sums of a block
(512 rows of 4 bytes for each outcome and covariate) are meant to stay in a core's second cache.
"""


class Method(IntEnum):
    """What random numbers are drawn for; part of their key, so written values never change."""

    BERNOULLI = 1
    STRATIFIED_PERMUTATION = 2
    DEVICE = 3


def unit_key(name: str) -> int:
    """Return a unit's key: the BLAKE2b digest of 8 bytes of its name, little-endian.

    Parameters
    ----------
    name : str
        A gene; ``"ntc:<ensemble>:<group>"`` for a group of negative controls; for a set of guides
        see `guide_set_name`.

    Returns
    -------
    int
        At least 0 and below 2^64.
    """
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "little")


def guide_set_name(guides: list[str] | tuple[str, ...]) -> str:
    """Return the unit name of a set of guides, which does not depend on their order."""
    return "guides:" + "&".join(sorted(guides))


@dataclass(frozen=True, slots=True)
class UnitStream:
    """The random numbers of one unit.

    Attributes
    ----------
    base_seed : int
        The seed of the run, at least 0.
    unit : str
        The unit's name; see `unit_key`.
    """

    base_seed: int
    unit: str

    def generator(self, method: Method, block: int) -> np.random.Generator:
        """Return the generator of one block of resamples, at its beginning."""
        sequence = np.random.SeedSequence(
            self.base_seed, spawn_key=(int(method), unit_key(self.unit), block)
        )
        return np.random.Generator(np.random.PCG64DXSM(sequence))
