"""What this machine can do, and how much of it each phase of a mash fit uses.

Ceilings: double-precision products of the sizes that are used ((R x R) by (R x 1024), per thread)
and of 2000 x 2000, memory copy, and exp. Phases: operations and bytes that the algorithm needs,
from the formulas below, against measured seconds. A row reads: this share of the product ceiling
of its own size, this share of the copy ceiling; what is left over is overhead, or work that the
formulas count too low (exp, log and erfc are one operation each).
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cases import fit_arrays
from common import best_of, run_worker, write_results
from threadpoolctl import threadpool_limits

TILE = 1024
CEILINGS = {"ceiling": "ceiling", "threads": "threads", "value": "value", "unit": "unit"}
PHASES = {
    "case": "case",
    "phase": "phase",
    "phase_seconds": "s",
    "gflop": "GFLOP",
    "gbyte": "GB",
    "gflops": "GFLOP/s",
    "share_of_gemm": "% of GEMM",
    "gbytes": "GB/s",
    "share_of_copy": "% of copy",
}


def on_threads(function, threads):
    """Return the best wall seconds of the same call on every thread at once."""
    with ThreadPoolExecutor(threads) as pool:
        return best_of(lambda: list(pool.map(function, range(threads))))


def small_products(width, threads, repeats=400):
    """Return GFLOP/s of (R x R) by (R x 1024) on threads with single-threaded BLAS."""
    random = np.random.default_rng(0)
    square = random.standard_normal((width, width))
    tiles = random.standard_normal((threads, width, TILE))
    outs = np.empty_like(tiles)

    def work(i):
        for _ in range(repeats):
            np.matmul(square, tiles[i], out=outs[i])

    return threads * repeats * 2 * width**2 * TILE / on_threads(work, threads) / 1e9


def ceilings(widths, most):
    """Measure the machine, on one thread and on all; return a row for each ceiling."""
    random, rows = np.random.default_rng(0), []

    def add(name, threads, value, unit):
        rows.append({"ceiling": name, "threads": threads, "value": float(value), "unit": unit})

    big = random.standard_normal((2000, 2000))
    source, target = np.ones((most, 1 << 24)), np.empty((most, 1 << 24))
    values, out = -random.random((most, 1 << 16)), np.empty((most, 1 << 16))
    for threads in sorted({1, most}):
        with threadpool_limits(threads, user_api="blas"):
            add("GEMM 2000 x 2000", threads, 16 / best_of(lambda: big @ big), "GFLOP/s")
        with threadpool_limits(1, user_api="blas"):
            for width in widths:
                rate = small_products(width, threads)
                add(f"GEMM {width} x {width} x {TILE}", threads, rate, "GFLOP/s")
        wall = on_threads(lambda i: np.copyto(target[i], source[i]), threads)
        add("copy, read + write", threads, threads * 16 * (1 << 24) / wall / 1e9, "GB/s")
        wall = on_threads(lambda i: np.exp(values[i], out=out[i]), threads)
        add("exp", threads, threads * (1 << 16) / wall / 1e9, "G/s")
    return rows


def likelihood_work(shape, ranks, size, grid, varying):
    """Return operations and bytes of the likelihoods of all components."""
    n, width = shape
    if varying:
        dense, low = np.sum(ranks == width), ranks[ranks < width]
        per_row = width + dense * (width**2 + width**3 + 4 / 3 * width**3 + 9 * width * grid)
        per_row += np.sum(2 * width * low * (1 + low)) + 5 * grid * len(low)
    else:
        per_row = 2 * width**2 + np.sum(2 * ranks * (width + grid) + ranks)
    return n * (per_row + 3 * size), 8 * n * (2 * width + size)


def weights_work(n, size, phases):
    """Return operations and bytes: full passes, copies of columns, and steps on those."""
    columns, full = phases["columns"].astype(float), int(phases["full_passes"])
    active = np.sum(phases["pi"] > 0)
    mean_columns = columns.mean() if len(columns) else 0.0
    em = 10 * len(columns)
    steps = int(phases["iterations"]) + len(columns)
    flops = full * 2 * n * (size + active) + em * 4 * n * mean_columns
    flops += steps * n * (2 * mean_columns**2 + 6 * mean_columns)
    moved = 8 * n * (full * size + 2 * columns.sum() + (em + 2 * steps) * mean_columns)
    return flops, moved


def posterior_work(shape, ranks, phases, size, varying):
    """Return operations and bytes; every component with weight is counted for every effect."""
    n, width = shape
    kept = np.flatnonzero(phases["pi"] > 1e-10)
    of = ranks[(kept[kept > 0] - 1) % len(ranks)]
    if varying:  # project, form and factor H, solve, and push the factor outward
        per_row = np.sum(of * width + of**2 * width + of**3 / 3 + 2 * of * width + of**2 * width)
    else:
        per_row = 2 * width**2 + 2 * np.sum(ranks) * width + np.sum(2 * of * width)
    per_row += len(of) * 10 * width
    return n * per_row, 8 * n * (2 * width + 5 * width + len(kept))


def phase_rows(n_effects, width, alpha, learned, threads, known):
    """Return the rows of one case."""
    arrays = fit_arrays(n_effects, width, alpha, learned)
    report = run_worker("plait", "phases", arrays, threads=threads, repeats=3)
    phases = report["outputs"]
    ranks, size, grid = phases["ranks"].astype(float), len(phases["pi"]), len(arrays["grid"])
    shape, varying = (n_effects, width), alpha == 0
    works = {
        "likelihood": likelihood_work(shape, ranks, size, grid, varying),
        "weights": weights_work(n_effects, size, phases),
        "posterior": posterior_work(shape, ranks, phases, size, varying),
    }
    gemm = known[f"GEMM {width} x {width} x {TILE}", threads]
    copy = known["copy, read + write", threads]
    name = f"{n_effects} x {width} {'varying' if varying else 'common'} {'+10' * bool(learned)}"
    rows = []
    for phase, (flops, moved) in works.items():
        seconds = float(phases[phase])
        rates = flops / seconds / 1e9, moved / seconds / 1e9
        rows.append(
            {
                "case": name.strip(),
                "phase": phase,
                "phase_seconds": seconds,
                "gflop": float(flops / 1e9),
                "gbyte": float(moved / 1e9),
                "gflops": float(rates[0]),
                "share_of_gemm": float(100 * rates[0] / gemm),
                "gbytes": float(rates[1]),
                "share_of_copy": float(100 * rates[1] / copy),
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--effects", type=int, default=20_000)
    options = parser.parse_args()
    widths = (5, 20, 40)
    machine = ceilings(widths, options.threads)
    known = {(row["ceiling"], row["threads"]): row["value"] for row in machine}
    rows = [
        row
        for alpha in (1, 0)
        for width in widths
        for learned in (0, 10)
        for row in phase_rows(options.effects, width, alpha, learned, options.threads, known)
    ]
    notes = ["GEMM is the ceiling of products of the phase's own size, on the same threads"]
    write_results("roofline", machine, CEILINGS, options=vars(options))
    write_results("roofline_phases", rows, PHASES, notes, vars(options))


if __name__ == "__main__":
    main()
