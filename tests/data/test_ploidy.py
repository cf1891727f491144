"""Imputation quality where some samples have one copy: their copies, 0 or 2, vary twice as much."""

import numpy as np
import pytest

from plait.data.genotype_blocks import read_block
from plait.data.ploidy import bare
from plait.data.variants import VariantTable
from tests.gwas.conftest import Dosages

# Six diploid and four haploid samples in exact proportions: f = 0.5 in both sexes.
FEMALES = [0, 0.5, 1, 1, 1.5, 2]
MALES = [0, 0, 2, 2]


def source(chrom, pos, dosages, sexes=None):
    found = Dosages(np.array(dosages, dtype=np.float32))
    m = len(found.dosages)
    found._variants = VariantTable.of(chrom, pos, ["A"] * m, ["G"] * m)
    if sexes is not None:
        found.sexes = np.array(sexes)
    return found


def info(genotypes, samples=None):
    meanings = {name: bare(name) for name, _ in genotypes.variants.chromosomes}
    block = read_block(genotypes, slice(0, genotypes.n_variants), meanings=meanings)
    return (block if samples is None else block.of_samples(np.array(samples))).calls.info


def test_males_on_x():
    """Sums of squares over those of variances, 2 f (1 - f) of females and 4 f (1 - f) of males."""
    places = ["X", "chrX", "X", "X", "1"], [50_000_000, 3_000_000, 2_000_000, 155_000_000, 7]
    dosages = [FEMALES + MALES] * 5
    squares = 1 + 0.25 + 0 + 0 + 0.25 + 1 + 4
    as_diploid = squares / (0.25 * 2 * 10)
    by_sex = squares / (0.25 * (2 * 6 + 4 * 4))
    expected = [by_sex, by_sex, as_diploid, as_diploid, as_diploid]
    sexes = [2] * 6 + [1] * 4
    np.testing.assert_allclose(info(source(*places, dosages, sexes)), expected, rtol=1e-12)
    np.testing.assert_allclose(info(source(*places, dosages)), [as_diploid] * 5, rtol=1e-12)
    # A male whose sex is not known is taken as before.
    expected[:2] = [squares / (0.25 * (2 * 7 + 4 * 3))] * 2
    sexes[6] = 0
    np.testing.assert_allclose(info(source(*places, dosages, sexes)), expected, rtol=1e-12)


def test_certain_males_have_a_quality_of_1():
    """Also by themselves, and where some dosages are missing."""
    given = ["X"] * 2, [10**7] * 2, [FEMALES + MALES, [*FEMALES, 0, np.nan, np.nan, 2]]
    genotypes = source(*given, [2] * 6 + [1] * 4)
    np.testing.assert_allclose(info(genotypes, [9, 6, 7, 8]), 1.0, rtol=1e-12)
    both = info(genotypes)[1]
    assert both == pytest.approx((2.5 + 2) / (0.25 * (2 * 6 + 4 * 2)), rel=1e-12)


@pytest.mark.parametrize("chrom", ["Y", "MT", "chrM"])
def test_what_all_have_once(chrom):
    np.testing.assert_allclose(info(source([chrom], [100], [[0, 2, 2, 0]])), 1.0, rtol=1e-12)
    np.testing.assert_allclose(info(source(["2"], [100], [[0, 2, 2, 0]])), 2.0, rtol=1e-12)
