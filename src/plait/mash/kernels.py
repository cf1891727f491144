"""Compiled loops of mash: arrays in, arrays out.

Notation: a prior matrix is ``U = F F^T`` (F is R x r), a component is ``s U`` with ``s = omega^2``,
an error covariance is ``Sigma = M M^T`` and ``y = M^{-1} bhat``, ``N = M^{-1} F``. Factors of all
base matrices are stacked by rows in ``factors`` (total rank x R); those of base k are
``factors[offsets[k]:offsets[k+1]]``. Only the observed coordinates of a row enter.
"""

import math

import numpy as np

from plait.mash.lane_kernels import LANES
from plait.mash.row_batch_kernels import load_rows, new_batch
from plait.mash.row_likelihood_kernels import fill_base, fill_levels, fill_line, new_likelihood_work
from plait.mash.row_posterior_kernels import (
    add_base,
    finish,
    new_posterior_work,
    new_totals,
)
from plait.numerics.compiled import njit

_SQRT_HALF = math.sqrt(0.5)
_NEGLIGIBLE = 1e-14
_ROUNDING = 1e-13


@njit(nogil=True, cache=True)
def factor_errors(sigma, observed, index, chol):  # type: ignore[no-untyped-def]
    """Cholesky factor of the observed block; returns its size, whether diagonal, and PD."""
    m = 0
    for r in range(observed.shape[0]):
        if observed[r]:
            index[m] = r
            m += 1
    diagonal = True
    for i in range(m):
        for j in range(i):
            if sigma[index[i], index[j]] != 0.0:
                diagonal = False
    for i in range(m):
        for j in range(i + 1):
            total = sigma[index[i], index[j]]
            if not diagonal:
                for k in range(j):
                    total -= chol[i, k] * chol[j, k]
            if i == j:
                if total <= 0.0:
                    return m, diagonal, False
                chol[i, i] = math.sqrt(total)
            else:
                chol[i, j] = total / chol[j, j]
    return m, diagonal, True


@njit(nogil=True, cache=True)
def whiten(chol, m, diagonal, vector, index, out):  # type: ignore[no-untyped-def]
    """Solve ``M out = vector[index]``."""
    for i in range(m):
        total = vector[index[i]]
        if not diagonal:
            for k in range(i):
                total -= chol[i, k] * out[k]
        out[i] = total / chol[i, i]


@njit(nogil=True, cache=True)
def _project(factors, start, rank, chol, m, diagonal, index, out):  # type: ignore[no-untyped-def]
    """Fill ``out[:rank, :m]`` with the rows of ``N^T``."""
    for c in range(rank):
        whiten(chol, m, diagonal, factors[start + c], index, out[c])


@njit(nogil=True, cache=True)
def row_log_likelihoods(errors, rows, diagonal, factors, products, offsets, plan, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (components, all rows) at some rows, each with its own error covariance.

    ``errors`` are effects, error covariances, which have to be all ``diagonal`` or none, and
    observed cells. With ``plan = (bases, pointers, scales, positions, null_position)``, the
    components ``pointers[b]:pointers[b+1]`` belong to ``bases[b]``. ``products`` are the base
    matrices ``F F^T``; widths of factors and products are padded to whole tiles. Returns the first
    row whose error covariance is not positive definite, or -1.
    """
    bhat, sigma, observed = errors
    bases, pointers, scales, positions, null_position = plan
    width = bhat.shape[1]
    batch, work = new_batch(width), new_likelihood_work(width, scales.shape[0])
    for start in range(0, rows.shape[0], LANES):
        chosen = rows[start : start + LANES]
        failed = load_rows(batch, bhat, sigma, observed, chosen, diagonal)
        if failed >= 0:
            return failed
        fill_levels(batch, work)
        if null_position >= 0:
            for lane in range(chosen.shape[0]):
                out[null_position, chosen[lane]] = work.level[lane] - 0.5 * work.square[lane]
        for b in range(bases.shape[0]):
            k = bases[b]
            factor = factors[offsets[k] : offsets[k + 1]]
            grid = scales[pointers[b] : pointers[b + 1]]
            places = positions[pointers[b] : pointers[b + 1]]
            if factor.shape[0] == 1:
                fill_line(batch, work, factor, diagonal, grid, places, chosen, out)
            else:
                fill_base(batch, work, factor, products[k], diagonal, grid, places, chosen, out)
    return -1


@njit(nogil=True, cache=True)
def _sort_components(weights, j, order):  # type: ignore[no-untyped-def]
    """Order the components of row j by falling weight; returns how many have any."""
    count = 0
    for p in range(weights.shape[0]):
        w = weights[p, j]
        if not w > 0.0:
            continue
        place = count
        while place > 0 and weights[order[place - 1], j] < w:
            order[place] = order[place - 1]
            place -= 1
        order[place] = p
        count += 1
    return count


@njit(nogil=True, cache=True)
def _add_tails(w, m, v, alive, neg, pos, zero):  # type: ignore[no-untyped-def]
    """Add a component's sign probabilities; returns the smallest tail so far."""
    smallest = 1.0
    for q in range(m.shape[0]):
        if not alive[q]:
            zero[q] += w
        else:
            tail = 0.5 * math.erfc(abs(m[q]) / math.sqrt(v[q]) * _SQRT_HALF)
            if m[q] > 0:
                neg[q] += w * tail
                pos[q] += w * (1.0 - tail)
            else:
                neg[q] += w * (1.0 - tail)
                pos[q] += w * tail
        smallest = min(smallest, min(neg[q], pos[q]))
    return smallest


@njit(nogil=True, cache=True)
def _summarise(  # type: ignore[no-untyped-def]
    j, used, ws, ms, vs, neg, pos, zero, mean, sd, negative, zeros, lfsr
):
    """Combine the kept components of a row; the variance in compensated form."""
    for q in range(ms.shape[1]):
        centre = 0.0
        for c in range(used):
            centre += ws[c] * ms[c, q]
        spread = 0.0
        for c in range(used):
            d = ms[c, q] - centre
            spread += ws[c] * (d * d + vs[c, q])
        mean[j, q] = centre
        sd[j, q] = math.sqrt(max(spread, 0.0))
        negative[j, q] = min(neg[q], 1.0)
        zeros[j, q] = min(zero[q], 1.0)
        lfsr[j, q] = min(zero[q] + min(neg[q], pos[q]), 1.0)


@njit(nogil=True, cache=True)
def common_posterior(  # type: ignore[no-untyped-def]
    z,
    weights,
    select,
    first,
    bases,
    offsets,
    mean_scale,
    variances,
    alive,
    maps,
    covariances,
    want_cov,
    mean,
    sd,
    negative,
    zeros,
    lfsr,
    cov,
):
    """Posterior summaries of the selected rows of a tile that share one error covariance.

    ``z`` (total rank, tile): whitened data in each base's eigenbasis. Component p has base
    ``bases[p]`` (-1 is the null), factors ``mean_scale[p, :rank]``, variances ``variances[p]``, and
    ``maps`` (total rank, Q) takes its coefficients to the output coordinates.
    """
    components, width = variances.shape
    order = np.zeros(components, dtype=np.int64)
    ws, ms, vs = np.zeros(components), np.zeros((components, width)), np.zeros((components, width))
    neg, pos, zero = np.zeros(width), np.zeros(width), np.zeros(width)
    for j in range(select.shape[0]):
        if not select[j]:
            continue
        t = first + j
        count = _sort_components(weights, t, order)
        neg[:] = 0.0
        pos[:] = 0.0
        zero[:] = 0.0
        used = 0
        smallest = 0.0
        if want_cov:
            cov[j] = 0.0
        for c in range(count):
            p = order[c]
            w = weights[p, t]
            k = bases[p]
            if k >= 0 and w < _NEGLIGIBLE * smallest:
                continue
            m = ms[used]
            m[:] = 0.0
            if k >= 0:
                start = offsets[k]
                for r in range(offsets[k + 1] - start):
                    coefficient = mean_scale[p, r] * z[start + r, t]
                    for q in range(width):
                        m[q] += coefficient * maps[start + r, q]
            for q in range(width):
                vs[used, q] = variances[p, q]
                if not alive[p, q]:
                    m[q] = 0.0
            ws[used] = w
            smallest = _add_tails(w, m, vs[used], alive[p], neg, pos, zero)
            if want_cov:
                for q in range(width):
                    for s in range(width):
                        cov[j, q, s] += w * (covariances[p, q, s] + m[q] * m[s])
            used += 1
        _summarise(j, used, ws, ms, vs, neg, pos, zero, mean, sd, negative, zeros, lfsr)
        if want_cov:
            for q in range(width):
                for s in range(width):
                    cov[j, q, s] -= mean[j, q] * mean[j, s]


@njit(nogil=True, cache=True)
def component_posterior(  # type: ignore[no-untyped-def]
    factors, start, rank, scale, chol, m, diagonal, index, y, projected, h, t
):
    """Posterior of the coefficients of one component: ``t`` their mean, ``h`` the factor C.

    ``H = I + s N^T N = C C^T``, mean ``s H^{-1} N^T y``, covariance ``s H^{-1}``: nothing cancels,
    whatever the ratio of prior to error.
    """
    _project(factors, start, rank, chol, m, diagonal, index, projected)
    for c in range(rank):
        inner = 0.0
        for i in range(m):
            inner += projected[c, i] * y[i]
        t[c] = inner
        for d in range(c + 1):
            total = 0.0
            for i in range(m):
                total += projected[c, i] * projected[d, i]
            h[c, d] = scale * total
        h[c, c] += 1.0
    for c in range(rank):
        for d in range(c + 1):
            total = h[c, d]
            for k in range(d):
                total -= h[c, k] * h[d, k]
            h[c, d] = math.sqrt(total) if c == d else total / h[d, d]
    for c in range(rank):
        total = t[c]
        for k in range(c):
            total -= h[c, k] * t[k]
        t[c] = total / h[c, c]
    for c in range(rank - 1, -1, -1):
        total = t[c]
        for k in range(c + 1, rank):
            total -= h[k, c] * t[k]
        t[c] = total / h[c, c]
    for c in range(rank):
        t[c] *= scale


@njit(nogil=True, cache=True)
def outward_factor(factors, start, rank, back, use_map, output_map, outward, alive):  # type: ignore[no-untyped-def]
    """Factor rows of the output coordinates, and which of them the component can move.

    ``outward[c, q] = sum_i A_qi back_i F_ic``. With a map, a row that cancels to rounding is zero.
    """
    width = alive.shape[0]
    for q in range(width):
        moved, size = 0.0, 0.0
        for c in range(rank):
            if use_map:
                total, absolute = 0.0, 0.0
                for i in range(back.shape[0]):
                    term = output_map[q, i] * back[i] * factors[start + c, i]
                    total += term
                    absolute += abs(term)
            else:
                total = back[q] * factors[start + c, q]
                absolute = abs(total)
            outward[c, q] = total
            moved += total * total
            size += absolute * absolute
        alive[q] = moved > _ROUNDING * size
        if not alive[q]:
            for c in range(rank):
                outward[c, q] = 0.0


@njit(nogil=True, cache=True)
def row_posterior(  # type: ignore[no-untyped-def]
    errors, rows, diagonal, weights, first, groups, factors, mapped, want_cov, outputs
):
    """Posterior summaries of some rows, each with its own error covariance.

    ``errors``, ``rows`` and ``diagonal`` are as for `row_log_likelihoods`; ``weights[:, first:]``
    belong to the rows. ``groups`` are components by base matrix (`posterior.groups_of`),
    ``factors`` are `Components.triangular`; ``mapped`` tells whether an output map is used, the
    map, and what takes rows of effects to its scale.
    """
    bhat, sigma, observed = errors
    begins, ends, bases, pointers, scales, places = groups
    rotated, triangular, orders = factors
    mean, sd, negative, zeros, lfsr, cov = outputs
    size, width = bhat.shape[1], mean.shape[1]
    batch, totals = new_batch(size), new_totals(width)
    work = new_posterior_work(size, width, want_cov)
    for start in range(0, rows.shape[0], LANES):
        chosen = rows[start : start + LANES]
        load_rows(batch, bhat, sigma, observed, chosen, diagonal)
        for buffer in totals:
            buffer[:] = 0.0
        if want_cov:
            for lane in range(chosen.shape[0]):
                cov[chosen[lane]] = 0.0
        for b in range(bases.shape[0]):
            own, part = slice(begins[b], ends[b]), slice(pointers[b], pointers[b + 1])
            order = orders[bases[b]]
            prior = (rotated[own], triangular[own], order, scales[part], places[part])
            add_base(
                work,
                batch,
                totals,
                prior,
                mapped,
                weights,
                first,
                chosen,
                diagonal,
                want_cov,
                cov,
            )
        finish(totals, chosen, want_cov, mean, sd, negative, zeros, lfsr, cov)
