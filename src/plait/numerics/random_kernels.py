"""Compiled random numbers with the bits of NumPy's PCG64DXSM.

A kernel that draws as it goes takes one call where NumPy's generators take one for each batch.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numba.np.random._constants import fe_double, ke_double, we_double, ziggurat_exp_r
from numpy.typing import NDArray

from plait.numerics.compiled import njit

_MULTIPLIER = np.uint64(0xDA942042E4DD58B5)
_ONE = np.uint64(1)
_LAYER_BITS, _LAYER = np.uint64(8), np.uint64(0xFF)


def words_of_state(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Return the state of a generator on PCG64DXSM: the high and low word of state and increment.

    Parameters
    ----------
    generator : numpy.random.Generator
        It is not advanced by what kernels draw.
    """
    held: Any = generator.bit_generator.state["state"]
    low = 2**64 - 1
    words = [part for whole in (held["state"], held["inc"]) for part in (whole >> 64, whole & low)]
    return np.array(words, dtype=np.uint64)


def _upper_half(typing_context, a, b):  # type: ignore[no-untyped-def]
    """Return type and code of the upper 64 of the 128 bits of a product."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        wide = ir.IntType(128)
        a, b = (builder.zext(argument, wide) for argument in arguments)
        return builder.trunc(builder.lshr(builder.mul(a, b), wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), code


_high_product: Any = intrinsic(_upper_half)


@njit(nogil=True, cache=True, forceinline=True)
def _output(high, low):  # type: ignore[no-untyped-def]
    """Return the 64 random bits of a state."""
    high ^= high >> np.uint64(32)
    high *= _MULTIPLIER
    high ^= high >> np.uint64(48)
    return high * (low | _ONE)


@njit(nogil=True, cache=True, forceinline=True)
def _next(high, low, increment_high, increment_low):  # type: ignore[no-untyped-def]
    """Return the state that follows."""
    product = low * _MULTIPLIER
    next_low = product + increment_low
    carry = np.uint64(next_low < product)
    high = high * _MULTIPLIER + _high_product(low, _MULTIPLIER) + increment_high + carry
    return high, next_low


@njit(nogil=True, cache=True)
def fill_words(state, words):  # type: ignore[no-untyped-def]
    """Fill ``words`` with 64 random bits each, as ``bit_generator.random_raw``; go on in place."""
    high, low, increment_high, increment_low = state[0], state[1], state[2], state[3]
    for i in range(words.shape[0]):
        words[i] = _output(high, low)
        high, low = _next(high, low, increment_high, increment_low)
    state[0], state[1] = high, low


@njit(nogil=True, cache=True)
def fill_exponentials(state, values):  # type: ignore[no-untyped-def]
    """Fill ``values`` as ``Generator.standard_exponential`` does; go on in place.

    The ziggurat of 256 layers (Marsaglia and Tsang 2000) of 53 bits.
    """
    high, low, increment_high, increment_low = state[0], state[1], state[2], state[3]
    for i in range(values.shape[0]):
        while True:
            word = _output(high, low) >> np.uint64(3)
            high, low = _next(high, low, increment_high, increment_low)
            layer = np.int64(word & _LAYER)
            word >>= _LAYER_BITS
            x = np.float64(word) * we_double[layer]
            if word < ke_double[layer]:
                break
            u = np.float64(_output(high, low) >> np.uint64(11)) * 2.0**-53
            high, low = _next(high, low, increment_high, increment_low)
            if layer == 0:
                x = ziggurat_exp_r - math.log1p(-u)
                break
            if (fe_double[layer - 1] - fe_double[layer]) * u + fe_double[layer] < math.exp(-x):
                break
        values[i] = x
    state[0], state[1] = high, low
