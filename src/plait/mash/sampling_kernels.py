"""Compiled posterior sampling of mash; notation as in `plait.mash.kernels`."""

import math

import numpy as np

from plait.mash.kernels import component_posterior, factor_errors, outward_factor, whiten
from plait.numerics.compiled import njit
from plait.numerics.random import fill_normals, uniform


@njit(nogil=True, cache=True)
def draw_posterior(  # type: ignore[no-untyped-def]
    bhat,
    sigma,
    observed,
    back,
    weights,
    first,
    item,
    bases,
    scales,
    factors,
    offsets,
    use_map,
    output_map,
    key,
    draws,
):
    """Fill ``draws`` (rows, Q, M) with draws from the posterior mixture of every row."""
    components = weights.shape[0]
    n, width, count = draws.shape
    size = bhat.shape[1]
    chol, projected, h = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    y, t, x = np.zeros(size), np.zeros(size), np.zeros(size + 1)
    outward, alive = np.zeros((size, width)), np.zeros(width, dtype=np.bool_)
    index = np.zeros(size, dtype=np.int64)
    chosen = np.zeros(count, dtype=np.int64)
    counter, words = np.zeros(4, dtype=np.uint64), np.zeros(4, dtype=np.uint64)
    for j in range(n):
        m, diagonal, _ = factor_errors(sigma[j], observed[j], index, chol)
        whiten(chol, m, diagonal, bhat[j], index, y)
        total_weight = 0.0
        for component in range(components):
            total_weight += weights[component, first + j]
        for d in range(count):
            target = uniform(item + j, d, key, counter, words) * total_weight
            component = 0
            reached = weights[0, first + j]
            while reached < target and component < components - 1:
                component += 1
                reached += weights[component, first + j]
            chosen[d] = component
        for component in range(components):
            ready = False
            k = bases[component]
            start, rank = 0, 0
            for d in range(count):
                if chosen[d] != component:
                    continue
                if k < 0 or scales[component] == 0.0:
                    draws[j, :, d] = 0.0
                    continue
                if not ready:
                    start, rank = offsets[k], offsets[k + 1] - offsets[k]
                    component_posterior(
                        factors,
                        start,
                        rank,
                        scales[component],
                        chol,
                        m,
                        diagonal,
                        index,
                        y,
                        projected,
                        h,
                        t,
                    )
                    outward_factor(
                        factors, start, rank, back[j], use_map, output_map, outward, alive
                    )
                    ready = True
                fill_normals(item + j, d, key, counter, words, x, rank)
                root = math.sqrt(scales[component])
                for r in range(rank - 1, -1, -1):
                    total = x[r]
                    for e in range(r + 1, rank):
                        total -= h[e, r] * x[e]
                    x[r] = total / h[r, r]
                for q in range(width):
                    total = 0.0
                    for r in range(rank):
                        total += outward[r, q] * (t[r] + root * x[r])
                    draws[j, q, d] = total
