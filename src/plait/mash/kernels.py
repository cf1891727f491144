"""Compiled loops of mash: arrays in, arrays out.

Notation: a prior matrix is ``U = F F^T`` (F is R x r), a component is ``s U`` with ``s = omega^2``,
an error covariance is ``Sigma = M M^T`` and ``y = M^{-1} bhat``, ``N = M^{-1} F``. Factors of all
base matrices are stacked by rows in ``factors`` (total rank x R); those of base k are
``factors[offsets[k]:offsets[k+1]]``. Only the observed coordinates of a row enter.
"""

import math

import numpy as np
from numba import njit

_LOG_2PI = math.log(2.0 * math.pi)
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
def _tridiagonalise(a, size, v, off, w, p):  # type: ignore[no-untyped-def]
    """Reduce a symmetric matrix to tridiagonal form by reflections, rotating ``v`` along.

    The diagonal stays in ``a``, the off-diagonal goes to ``off`` (Golub and Van Loan, 8.3.1).
    """
    for k in range(size - 2):
        norm2 = 0.0
        for i in range(k + 2, size):
            norm2 += a[i, k] * a[i, k]
        head = a[k + 1, k]
        if norm2 == 0.0:
            off[k] = head
            continue
        length = math.sqrt(norm2 + head * head)
        alpha = -length if head > 0 else length
        w[k + 1] = head - alpha
        for i in range(k + 2, size):
            w[i] = a[i, k]
        beta = 2.0 / (norm2 + w[k + 1] * w[k + 1])
        dot_v = 0.0
        dot_p = 0.0
        for i in range(k + 1, size):
            total = 0.0
            for j in range(k + 1, size):
                total += a[i, j] * w[j]
            p[i] = beta * total
            dot_p += w[i] * p[i]
            dot_v += w[i] * v[i]
        half = 0.5 * beta * dot_p
        for i in range(k + 1, size):
            p[i] -= half * w[i]
            v[i] -= beta * dot_v * w[i]
        for i in range(k + 1, size):
            wi = w[i]
            pi = p[i]
            for j in range(k + 1, size):
                a[i, j] -= wi * p[j] + pi * w[j]
        off[k] = alpha
    if size > 1:
        off[size - 2] = a[size - 1, size - 2]


@njit(nogil=True, cache=True)
def _grid_forms(a, size, v, off, scales, first, last, log_det, quad, pivot, carry):  # type: ignore[no-untyped-def]
    """For every scale s: ``log det(I + s A)`` and ``v^T (I + s A)^{-1} v`` of a tridiagonal A.

    Every pivot is at least 1 because A is positive semi-definite.
    """
    count = last - first
    for g in range(count):
        s = scales[first + g]
        pivot[g] = 1.0 + s * a[0, 0]
        carry[g] = v[0]
        log_det[g] = 0.0
        quad[g] = v[0] * v[0] / pivot[g]
    for i in range(1, size):
        for g in range(count):
            s = scales[first + g]
            previous = pivot[g]
            ratio = s * off[i - 1] / previous
            log_det[g] += math.log(previous)
            pivot[g] = max(1.0 + s * a[i, i] - ratio * s * off[i - 1], 1.0)
            carry[g] = v[i] - ratio * carry[g]
            quad[g] += carry[g] * carry[g] / pivot[g]
    for g in range(count):
        log_det[g] += math.log(pivot[g])


@njit(nogil=True, cache=True)
def _project(factors, start, rank, chol, m, diagonal, index, out):  # type: ignore[no-untyped-def]
    """Fill ``out[:rank, :m]`` with the rows of ``N^T``."""
    for c in range(rank):
        whiten(chol, m, diagonal, factors[start + c], index, out[c])


@njit(nogil=True, cache=True)
def row_log_likelihoods(  # type: ignore[no-untyped-def]
    bhat, sigma, observed, factors, offsets, bases, pointers, scales, positions, null_position, out
):
    """Log-likelihood of every row under the planned components, per-row error covariances.

    ``out`` (components, rows). Components ``pointers[b]:pointers[b+1]`` belong to ``bases[b]``; one
    tridiagonal reduction (or one inner product at rank 1) serves all of them. Returns the first row
    whose error covariance is not positive definite, or -1.
    """
    n, width = bhat.shape
    largest = scales.shape[0] + 1
    chol, a, projected = (
        np.zeros((width, width)),
        np.zeros((width, width)),
        np.zeros((width, width)),
    )
    y, v, w, p, off = (
        np.zeros(width),
        np.zeros(width),
        np.zeros(width),
        np.zeros(width),
        np.zeros(width),
    )
    log_det, quad, pivot, carry = (
        np.zeros(largest),
        np.zeros(largest),
        np.zeros(largest),
        np.zeros(largest),
    )
    index = np.zeros(width, dtype=np.int64)
    for j in range(n):
        m, diagonal, positive = factor_errors(sigma[j], observed[j], index, chol)
        if not positive:
            return j
        whiten(chol, m, diagonal, bhat[j], index, y)
        base = -0.5 * m * _LOG_2PI
        yy = 0.0
        for i in range(m):
            base -= math.log(chol[i, i])
            yy += y[i] * y[i]
        if null_position >= 0:
            out[null_position, j] = base - 0.5 * yy
        for b in range(bases.shape[0]):
            k = bases[b]
            start, rank = offsets[k], offsets[k + 1] - offsets[k]
            first, last = pointers[b], pointers[b + 1]
            _project(factors, start, rank, chol, m, diagonal, index, projected)
            if rank == 1 or m == 1:
                length2, inner = 0.0, 0.0
                for c in range(rank):
                    for i in range(m):
                        length2 += projected[c, i] * projected[c, i]
                if rank == 1:
                    for i in range(m):
                        inner += projected[0, i] * y[i]
                    along = inner * inner / length2 if length2 > 0.0 else 0.0
                else:
                    along = yy
                across = max(yy - along, 0.0)
                for c in range(first, last):
                    denominator = 1.0 + scales[c] * length2
                    out[positions[c], j] = base - 0.5 * (
                        across + along / denominator + math.log(denominator)
                    )
                continue
            if m == 0 or rank == 0:
                for c in range(first, last):
                    out[positions[c], j] = base - 0.5 * yy
                continue
            if rank >= m:
                size = m
                for i in range(m):
                    v[i] = y[i]
                    for e in range(i + 1):
                        a[i, e] = 0.0
                for c in range(rank):
                    for i in range(m):
                        for e in range(i + 1):
                            a[i, e] += projected[c, i] * projected[c, e]
            else:
                size = rank
                for c in range(rank):
                    v[c] = 0.0
                    for i in range(m):
                        v[c] += projected[c, i] * y[i]
                    for d in range(c + 1):
                        total = 0.0
                        for i in range(m):
                            total += projected[c, i] * projected[d, i]
                        a[c, d] = total
            for i in range(size):
                for e in range(i):
                    a[e, i] = a[i, e]
            _tridiagonalise(a, size, v, off, w, p)
            _grid_forms(a, size, v, off, scales, first, last, log_det, quad, pivot, carry)
            for c in range(first, last):
                g = c - first
                form = quad[g] if rank >= m else max(yy - scales[c] * quad[g], 0.0)
                out[positions[c], j] = base - 0.5 * (form + log_det[g])
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
    """Add a component's sign probabilities; returns the smallest tail so far (spec 9.3)."""
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
    bhat,
    sigma,
    observed,
    back,
    weights,
    first,
    select,
    bases,
    scales,
    factors,
    offsets,
    use_map,
    output_map,
    want_cov,
    mean,
    sd,
    negative,
    zeros,
    lfsr,
    cov,
):
    """Posterior summaries of the selected rows, each with its own error covariance."""
    components = weights.shape[0]
    width, size = mean.shape[1], bhat.shape[1]
    order = np.zeros(components, dtype=np.int64)
    ws, ms, vs = np.zeros(components), np.zeros((components, width)), np.zeros((components, width))
    neg, pos, zero = np.zeros(width), np.zeros(width), np.zeros(width)
    chol, projected, h = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    y, t = np.zeros(size), np.zeros(size)
    outward, alive = np.zeros((size, width)), np.zeros(width, dtype=np.bool_)
    index = np.zeros(size, dtype=np.int64)
    for j in range(bhat.shape[0]):
        if not select[j]:
            continue
        m, diagonal, _ = factor_errors(sigma[j], observed[j], index, chol)
        whiten(chol, m, diagonal, bhat[j], index, y)
        count = _sort_components(weights, first + j, order)
        neg[:] = 0.0
        pos[:] = 0.0
        zero[:] = 0.0
        used = 0
        smallest = 0.0
        if want_cov:
            cov[j] = 0.0
        for c in range(count):
            component = order[c]
            w = weights[component, first + j]
            k = bases[component]
            if k >= 0 and w < _NEGLIGIBLE * smallest:
                continue
            ms[used] = 0.0
            vs[used] = 0.0
            rank = 0
            alive[:] = False
            if k >= 0 and scales[component] > 0.0:
                start, rank = offsets[k], offsets[k + 1] - offsets[k]
                scale = scales[component]
                component_posterior(
                    factors,
                    start,
                    rank,
                    scale,
                    chol,
                    m,
                    diagonal,
                    index,
                    y,
                    projected,
                    h,
                    t,
                )
                outward_factor(factors, start, rank, back[j], use_map, output_map, outward, alive)
                for q in range(width):
                    for r in range(rank):
                        ms[used, q] += outward[r, q] * t[r]
                # outward <- C^{-1} outward, so that the covariance is s outward^T outward.
                for r in range(rank):
                    for q in range(width):
                        total = outward[r, q]
                        for e in range(r):
                            total -= h[r, e] * outward[e, q]
                        outward[r, q] = total / h[r, r]
                        vs[used, q] += scale * outward[r, q] * outward[r, q]
            ws[used] = w
            smallest = _add_tails(w, ms[used], vs[used], alive, neg, pos, zero)
            if want_cov:
                for q in range(width):
                    for s in range(width):
                        total = ms[used, q] * ms[used, s]
                        for r in range(rank):
                            total += scales[component] * outward[r, q] * outward[r, s]
                        cov[j, q, s] += w * total
            used += 1
        _summarise(j, used, ws, ms, vs, neg, pos, zero, mean, sd, negative, zeros, lfsr)
        if want_cov:
            for q in range(width):
                for s in range(width):
                    cov[j, q, s] -= mean[j, q] * mean[j, s]
