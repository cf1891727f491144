"""Genotypes in memory, and the regressions that the scan must reproduce."""

import numpy as np
from scipy import stats

from plait.data.genotype_kernels import select_samples
from plait.data.genotypes import GenotypeSource, as_floats, pack
from plait.data.variants import VariantTable
from plait.errors import OptionError


class InMemory(GenotypeSource):
    """Hard calls (variants, samples) in an array."""

    def __init__(self, calls, samples=None, chromosomes=None, ids=None):
        self.calls = np.asarray(calls, dtype=np.int8)
        count, width = self.calls.shape
        names = [f"s{i}" for i in range(width)] if samples is None else samples
        self.samples = np.array(names, dtype=np.str_)
        chromosomes = ["1"] * count if chromosomes is None else chromosomes
        self._variants = VariantTable.of(
            chromosomes, np.arange(1, count + 1), ["A"] * count, ["G"] * count, ids
        )

    @property
    def n_variants(self):
        return len(self.calls)

    @property
    def variants(self):
        return self._variants

    def read(self, variants=slice(None), samples=None, dtype=np.float32):
        calls = self.calls[variants]
        return as_floats(calls if samples is None else calls[:, samples], dtype)

    def read_packed(self, variants, samples=None):
        packed = pack(self.calls[variants])
        return packed if samples is None else select_samples(packed, samples)


class Dosages(InMemory):
    """Dosages (variants, samples), NaN where missing."""

    kind = "dosage"

    def __init__(self, dosages, samples=None):
        super().__init__(np.zeros(np.shape(dosages)), samples)
        self.dosages = np.asarray(dosages)

    def read(self, variants=slice(None), samples=None, dtype=np.float32):
        dosages = self.dosages[variants].astype(dtype)
        return dosages if samples is None else dosages[:, samples]

    def read_packed(self, variants, samples=None):
        raise OptionError("these are dosages")


def draw_calls(random, n_variants, n_samples, missing=0.0):
    frequency = random.uniform(0.1, 0.9, (n_variants, 1))
    calls = random.binomial(2, frequency, (n_variants, n_samples)).astype(np.int8)
    calls[random.random(calls.shape) < missing] = -1
    return calls


def draw_dosages(random, n_variants, n_samples, missing=0.0):
    """What imputation knows of calls: the mean given noisy data, as float32."""
    calls = draw_calls(random, n_variants, n_samples)
    dosages = np.clip(calls + 0.4 * random.normal(size=calls.shape), 0, 2).astype(np.float32)
    dosages[random.random(calls.shape) < missing] = np.nan
    return dosages


def as_dosages(calls):
    return np.where(calls < 0, np.nan, calls.astype(np.float32))


def least_squares(genotype, y, covariates):
    """Slope, error and log10 p of one variant by an ordinary regression."""
    X = np.column_stack([np.ones(len(y)), covariates, genotype])
    inverse = np.linalg.inv(X.T @ X)
    slope = inverse @ X.T @ y
    df = len(y) - X.shape[1]
    error = np.sqrt(np.sum((y - X @ slope) ** 2) / df * inverse[-1, -1])
    log_p = np.log(2) + stats.t.logsf(abs(slope[-1] / error), df)
    return slope[-1], error, log_p / np.log(10)
