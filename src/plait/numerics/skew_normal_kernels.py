"""Compiled summaries of samples; see `plait.numerics.skew_normal`."""

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import ANY_ORDER


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy")
def sample_moments(samples, mean, mean_square, third):  # type: ignore[no-untyped-def]
    """Write mean, mean square and third central moment of each of (k, n) samples."""
    n = samples.shape[1]
    for j in range(samples.shape[0]):
        sample = samples[j]
        total, square, cube = 0.0, 0.0, 0.0
        for i in range(n):
            total += sample[i]
            square += sample[i] * sample[i]
        centre = total / n
        for i in range(n):
            distance = sample[i] - centre
            cube += distance * distance * distance
        mean[j], mean_square[j], third[j] = centre, square / n, cube / n


@njit(nogil=True, cache=True, error_model="numpy")
def column_moments(values, mean, deviation, largest):  # type: ignore[no-untyped-def]
    """Write mean, population standard deviation and largest absolute value of each column."""
    n, columns = values.shape
    mean[:], deviation[:], largest[:] = 0.0, 0.0, 0.0
    for i in range(n):
        for k in range(columns):
            mean[k] += values[i, k]
            largest[k] = max(largest[k], abs(values[i, k]))
    mean /= n
    for i in range(n):
        for k in range(columns):
            deviation[k] += (values[i, k] - mean[k]) ** 2
    deviation[:] = np.sqrt(deviation / n)


@njit(nogil=True, cache=True, error_model="numpy")
def standardise(values, columns, mean, deviation, standardised):  # type: ignore[no-untyped-def]
    """Write some columns of ``values``, less their mean and by their deviation, as rows."""
    for j in range(columns.shape[0]):
        k = columns[j]
        for i in range(values.shape[0]):
            standardised[j, i] = (values[i, k] - mean[k]) / deviation[k]


@njit(nogil=True, cache=True)
def compare_with_ordered(  # type: ignore[no-untyped-def]
    samples, observed, ranks, extremes, counts, is_right, tails
):
    """Write where a value lies in each of (k, n) samples in ascending order.

    Least and largest of the sample; how many are at least and at most the value; whether it is at
    least the (lower) median; and the sample at some ranks, counted from 0, upwards if so. Else the
    same of the sample with its sign turned.
    """
    n = samples.shape[1]
    for j in range(samples.shape[0]):
        sample, value = samples[j], observed[j]
        extremes[j, 0], extremes[j, 1] = sample[0], sample[n - 1]
        at_least, at_most = 0, 0
        for i in range(n):
            at_least += sample[i] >= value
            at_most += sample[i] <= value
        counts[j, 0], counts[j, 1] = at_least, at_most
        is_right[j] = value >= sample[(n - 1) // 2]
        for i in range(ranks.shape[0]):
            rank = ranks[i]
            tails[j, i] = sample[rank] if is_right[j] else -sample[n - 1 - rank]
