"""Packed genotypes against brute force, and what every source of them offers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from plait.data.dosages import as_slices, hard_calls, other_allele, row_numbers
from plait.data.genotype_kernels import (
    count_allele,
    count_genotypes,
    decode,
    decode_exactly,
    select_samples,
    unpack_calls,
)
from plait.data.genotypes import GenotypeCounts, GenotypeSource, as_floats, pack
from plait.data.variants import VariantTable
from plait.errors import LabelError, OptionError, ShapeError

CODES = {2: 0, -1: 1, 1: 2, 0: 3}


def tables(most=70):
    shapes = array_shapes(min_dims=2, max_dims=2, max_side=most)
    return arrays(np.int8, shapes, elements=st.integers(-1, 2))


def codes_of(packed):
    """Codes (variants, 4 x bytes), by arithmetic."""
    return np.stack([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], -1).reshape(len(packed), -1)


@settings(max_examples=60, deadline=None)
@given(calls=tables())
def test_pack_and_unpack(calls):
    packed = pack(calls)
    assert packed.shape == (len(calls), -(-calls.shape[1] // 4))
    codes = codes_of(packed)
    expected = np.vectorize(CODES.get)(calls)
    np.testing.assert_array_equal(codes[:, : calls.shape[1]], expected)
    assert (codes[:, calls.shape[1] :] == 1).all()
    np.testing.assert_array_equal(unpack_calls(packed, calls.shape[1]), calls)


@settings(max_examples=60, deadline=None)
@given(calls=tables(140))
def test_counts(calls):
    found = count_genotypes(pack(calls), calls.shape[1])
    expected = np.stack([(calls == value).sum(1) for value in (2, -1, 1, 0)], -1)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(calls=tables(), data=st.data())
def test_select(calls, data):
    count = calls.shape[1]
    chosen = data.draw(st.lists(st.integers(0, count - 1), max_size=2 * count))
    columns = np.array(chosen, dtype=np.int64)
    np.testing.assert_array_equal(select_samples(pack(calls), columns), pack(calls[:, columns]))


@settings(max_examples=30, deadline=None)
@given(calls=tables(20), seed=st.integers(0, 99))
def test_decode(calls, seed):
    packed = pack(calls)
    values = np.random.default_rng(seed).normal(size=(len(calls), 4))
    codes = codes_of(packed).astype(int)
    expected = np.take_along_axis(values, codes, axis=1)
    out = np.empty((len(calls), 4 * packed.shape[1]), np.float32)
    decode(packed, values.astype(np.float32), out)
    np.testing.assert_array_equal(out, expected.astype(np.float32))
    exact = decode_exactly(packed, values, calls.shape[1])
    np.testing.assert_array_equal(exact, expected[:, : calls.shape[1]])


@settings(max_examples=60, deadline=None)
@given(
    alleles=arrays(
        np.int16, st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=st.integers(-2, 3)
    ),
    allele=st.integers(1, 3),
)
def test_counts_of_an_allele(alleles, allele):
    for others in (False, True):
        for sample, found in zip(alleles, count_allele(alleles, allele, others), strict=True):
            called = [a for a in sample.tolist() if a >= 0]
            copies = called.count(allele)
            expected = len(called) - copies if others else copies
            expected *= 2 if len(called) == 1 else 1  # a haploid counts as a homozygote
            assert found == (-1 if -1 in sample or sample[0] < 0 else expected)


@given(
    numbers=st.lists(st.integers(0, 12), max_size=15),
    start=st.integers(-15, 15),
    stop=st.integers(-15, 15),
    step=st.sampled_from([-3, -1, 1, 2]),
)
def test_rows_and_runs(numbers, start, stop, step):
    wanted = np.array(numbers, dtype=int)
    runs = as_slices(wanted)
    joined = [number for run in runs for number in range(run.start, run.stop)]
    assert joined == numbers
    assert all(a.stop != b.start for a, b in pairwise(runs))
    assert row_numbers(wanted, 13).tolist() == numbers
    rows = slice(start, stop, step)
    assert row_numbers(rows, 13).tolist() == list(range(13))[rows]


@pytest.mark.parametrize("bad", [[13], [-1], [1.0], [True], [[1]]])
def test_rows_that_are_not_there(bad):
    with pytest.raises(ShapeError):
        row_numbers(np.array(bad), 13)


def test_hard_calls():
    values = np.array([0, 0.1, 0.11, 0.9, 1.2, 1.95, 2, np.nan])
    assert hard_calls(values).tolist() == [0, 0, -1, 1, -1, 2, 2, -1]
    assert hard_calls(values.astype(np.float32)).tolist() == [0, 0, -1, 1, -1, 2, 2, -1]
    assert other_allele(np.array([0, 1, 2, -1], np.int8), 2).tolist() == [2, 1, 0, -1]


def test_floats_of_calls():
    calls = np.array([[0, -1, 2]], np.int8)
    assert as_floats(calls, np.int8) is calls
    np.testing.assert_array_equal(as_floats(calls, np.float64), [[0, np.nan, 2]])
    with pytest.raises(OptionError, match="int32"):
        as_floats(calls, np.int32)
    with pytest.raises(ShapeError, match="1-d"):
        pack(calls[0])


class Made(GenotypeSource):
    """Calls that are in memory, through nothing but what a source must have."""

    def __init__(self, calls, chrom):
        self.calls, self.samples = calls, np.array([f"s{i}" for i in range(calls.shape[1])])
        n = len(calls)
        self.table = VariantTable.of(chrom, np.arange(1, n + 1), ["A"] * n, ["C"] * n)

    @property
    def n_variants(self):
        return len(self.calls)

    @property
    def variants(self):
        return self.table

    def read(self, variants=slice(None), samples=None, dtype=np.float32):
        rows = self.calls[variants]
        return as_floats(rows if samples is None else rows[:, samples], dtype)


@pytest.fixture
def made():
    calls = np.random.default_rng(1).integers(-1, 3, (30, 11)).astype(np.int8)
    return Made(calls, ["1"] * 12 + ["2"] * 18)


def test_what_every_source_offers(made):
    with made as source:
        assert repr(source) == "Made(11 samples x 30 variants)"
    np.testing.assert_array_equal(
        made.read_packed(slice(3, 9), np.array([4, 2])), pack(made.calls[3:9][:, [4, 2]])
    )
    counts = made.counts(slice(5, 20))
    part = made.calls[5:20]
    assert isinstance(counts, GenotypeCounts)
    np.testing.assert_array_equal(counts.n_called, (part >= 0).sum(1))
    total = np.where(part < 0, 0, part).sum(1)
    np.testing.assert_allclose(counts.frequency, total / (2 * counts.n_called))
    np.testing.assert_array_equal(
        counts.minor_count, np.minimum(total, 2 * counts.n_called - total)
    )
    assert made.sample_numbers(["s3", "s0"]).tolist() == [3, 0]
    with pytest.raises(LabelError, match="1 of 2 samples have no genotypes"):
        made.sample_numbers(["s3", "zoe"])


def test_blocks(made):
    assert made.blocks() == [slice(0, 12), slice(12, 30)]
    assert made.blocks(10) == [slice(0, 10), slice(10, 12), slice(12, 22), slice(22, 30)]
    assert made.blocks(20, by_chromosome=False) == [slice(0, 20), slice(20, 30)]
    with pytest.raises(OptionError, match="at least 1"):
        made.blocks(0)
    assert made.block_size() == 16_384


@pytest.mark.parametrize(("samples", "size"), [(10_000, 768), (10**9, 256)])
def test_blocks_of_many_samples(made, monkeypatch, samples, size):
    monkeypatch.setattr(type(made), "n_samples", samples)
    assert made.block_size() == size


def test_variants():
    table = VariantTable.of(["1", "1", "2"], [5, 6, 7], ["A"] * 3, ["C"] * 3, cm=[0.1, 0.2, 0.3])
    assert table.keys.to_list() == ["1:5:A:C", "1:6:A:C", "2:7:A:C"]
    assert table.chromosomes == [("1", slice(0, 2)), ("2", slice(2, 3))]
    assert repr(table) == "VariantTable(3 variants on 2 chromosomes)"
    assert table[1:2].frame["id"].to_list() == ["."]
    assert VariantTable.of([], [], [], []).chromosomes == []
    with pytest.raises(ShapeError, match="differ in length"):
        VariantTable.of(["1"], [1, 2], ["A"], ["C"])
    with pytest.raises(ShapeError, match="have the columns"):
        VariantTable(table.frame.drop("cm"))
