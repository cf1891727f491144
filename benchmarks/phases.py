"""The three phases of a mash fit, timed one by one through the functions that `mash` calls."""

import time

import numpy as np

from plait import mash
from plait.execution.threads import single_threaded_blas, use_threads
from plait.mash.likelihoods import Components, ErrorModel, RelativeLikelihoods
from plait.mash.model import pseudo_counts
from plait.mash.posterior import Request, apply_mixture
from plait.numerics.mixture_weights import fit_mixture_weights


class CountedLikelihoods:
    """Likelihoods that note their passes over all columns and over some."""

    def __init__(self, source):
        self.source = source
        self.n_rows, self.n_components = source.n_rows, source.n_components
        self.full, self.full_seconds, self.partial = 0, 0.0, []

    def map_blocks(self, function, columns=None):
        """Pass on, and count."""
        start = time.perf_counter()
        results = self.source.map_blocks(function, columns)
        if columns is None:
            self.full += 1
            self.full_seconds += time.perf_counter() - start
        else:
            self.partial.append(len(columns))
        return results


def measure(arrays, threads):
    """Return seconds of each phase and the counts that its work follows from."""
    matrices = dict(zip(arrays["names"].tolist(), arrays["matrices"], strict=True))
    marks = [time.perf_counter()]
    data = mash.mash_set_data(arrays["bhat"], arrays["shat"], alpha=float(arrays["alpha"]))
    components = Components(matrices, arrays["grid"], True)
    marks.append(time.perf_counter())
    with use_threads(threads), single_threaded_blas():
        source = RelativeLikelihoods(ErrorModel(data, components))
        source.map_blocks(lambda rows, block: None)
        marks.append(time.perf_counter())
        counted = CountedLikelihoods(source)
        fit = fit_mixture_weights(counted, None, pseudo_counts(components, "nullbiased", 10))
        marks.append(time.perf_counter())
        apply_mixture(data, components, fit.pi, Request(weights=True))
        marks.append(time.perf_counter())
    seconds = np.diff(marks)
    return {
        "data": seconds[0],
        "likelihood": seconds[1],
        "weights": seconds[2],
        "posterior": seconds[3],
        "full_passes": counted.full,
        "full_seconds": counted.full_seconds,
        "columns": np.array(counted.partial),
        "iterations": fit.iterations,
        "pi": fit.pi,
        "ranks": np.array([factor.shape[1] for factor in components.factors]),
    }
