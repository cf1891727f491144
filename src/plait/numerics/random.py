"""Counter-based random numbers for compiled loops.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): the numbers of an item depend on the seed, the
item and the position alone, so neither blocks nor threads nor order change them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from plait.numerics.compiled import njit

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


@njit(nogil=True, cache=True)
def philox(counter: NDArray[np.uint64], key: np.uint64, out: NDArray[np.uint64]) -> None:
    """Write the four 32-bit words of a counter (four 32-bit words) under a 64-bit key."""
    k0, k1 = key & _LOW, key >> _SHIFT
    c0, c1, c2, c3 = counter[0], counter[1], counter[2], counter[3]
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    out[0], out[1], out[2], out[3] = c0, c1, c2, c3


@njit(nogil=True, cache=True)
def uniform_pair(words: NDArray[np.uint64]) -> tuple[float, float]:
    """Return two numbers in (0, 1) with 53 random bits from four 32-bit words."""
    scale = 1.0 / 9007199254740992.0
    first = ((words[0] >> np.uint64(5)) * np.uint64(67108864)) + (words[1] >> np.uint64(6))
    second = ((words[2] >> np.uint64(5)) * np.uint64(67108864)) + (words[3] >> np.uint64(6))
    return (np.float64(first) + 0.5) * scale, (np.float64(second) + 0.5) * scale


@njit(nogil=True, cache=True)
def fill_normals(
    item: int,
    draw: int,
    key: np.uint64,
    counter: NDArray[np.uint64],
    words: NDArray[np.uint64],
    out: NDArray[np.float64],
    count: int,
) -> None:
    """Fill ``out[:count]`` with standard normals of one draw of one item (Box-Muller)."""
    counter[1] = np.uint64(draw)
    counter[2] = np.uint64(item) & _LOW
    counter[3] = np.uint64(item) >> _SHIFT
    for pair in range((count + 1) // 2):
        # Block 0 of a draw belongs to the choice of its component.
        counter[0] = np.uint64(pair + 1)
        philox(counter, key, words)
        u, v = uniform_pair(words)
        radius = math.sqrt(-2.0 * math.log(u))
        out[2 * pair] = radius * math.cos(2.0 * math.pi * v)
        if 2 * pair + 1 < count:
            out[2 * pair + 1] = radius * math.sin(2.0 * math.pi * v)


@njit(nogil=True, cache=True)
def uniform(
    item: int, draw: int, key: np.uint64, counter: NDArray[np.uint64], words: NDArray[np.uint64]
) -> float:
    """Return the uniform number of one draw of one item."""
    counter[0] = np.uint64(0)
    counter[1] = np.uint64(draw)
    counter[2] = np.uint64(item) & _LOW
    counter[3] = np.uint64(item) >> _SHIFT
    philox(counter, key, words)
    return float(uniform_pair(words)[0])
