"""Filters of other tools, each rule against its definition, and gwaslab's codes by hand."""

import numpy as np
import polars as pl
import pytest

from plait.data.summary_statistics import SummaryStatistics
from plait.errors import HarmonisationError, OptionError
from plait.gwas import filter_summary_statistics, harmonise
from plait.gwas.status_codes import gwaslab_status
from plait.gwas.summary_filters import PRESETS
from plait.io.fasta import Fasta


def table(n_rows=200, build=None, **columns):
    frame = {
        "chrom": ["1"] * n_rows,
        "pos": np.arange(1, n_rows + 1),
        "ea": ["A"] * n_rows,
        "oa": ["G"] * n_rows,
        "beta": np.ones(n_rows),
        "se": np.ones(n_rows),
    }
    return SummaryStatistics.from_frame(pl.DataFrame(frame | columns), build=build)


def reasons(found):
    return {rule.reason: count for rule, count in found.dropped.items()}


def with_values(n_rows, usual, **rare):
    values = np.full(n_rows, usual, dtype=float)
    for place, value in rare.items():
        values[int(place[1:])] = value
    return values


def test_ldsc():
    letters = ["A"] * 200
    letters[10:14] = ["C", "G", "AT", "A"]
    others = ["G"] * 200
    others[10:14] = ["G", "C", "A", "AT"]
    n = with_values(200, 3000, r50=2000, r51=1999.9, r52=np.nan, r53=9e9)
    given = table(
        ea=letters,
        oa=others,
        info=with_values(200, 1, r0=0.9, r1=0.8999, r2=np.nan),
        eaf=with_values(200, 0.3, r3=0.01, r4=0.0101, r5=0.99, r6=0.9899, r7=np.nan),
        n=n,
        p=["0.3"] * 20 + ["0", "1e-400"] + ["1"] * 178,
    )  # of the row with p = 0 the z makes a p-value
    found = filter_summary_statistics(given, "ldsc")
    assert found.idle == ()
    assert reasons(found) == {"low_info": 2, "low_maf": 3, "no_p": 0, "ambiguous": 4, "small_n": 2}
    gone = {1, 2, 3, 5, 7, 10, 11, 12, 13, 51, 52}
    assert found.table.frame["pos"].to_list() == [k + 1 for k in range(200) if k not in gone]
    left = {name: count for name, count in reasons(found).items() if count}
    assert found.table.counts == {**given.counts, **left}


def test_the_sample_size_of_ldsc_is_that_of_the_rows_that_are_left():
    n = np.r_[np.full(100, 9000.0), np.full(100, 3000.0)]
    info = np.r_[np.full(100, 0.1), np.full(100, 1.0)]
    found = filter_summary_statistics(table(n=n, info=info), "ldsc")
    assert len(found.table) == 100 and reasons(found)["small_n"] == 0
    n[100:] = np.linspace(1000, 3000, 100)
    kept = filter_summary_statistics(table(n=n, info=info), "ldsc").table.column("n")
    assert kept.min() >= np.quantile(n[100:], 0.9) / 1.5 > n[100:][n[100:] < kept.min()].max()


def test_mungesumstats():
    n = np.random.default_rng(1).normal(1000, 10, 400)
    n[7], n[8] = 5000, np.nan
    known = np.delete(n, 8)
    assert n[7] > known.mean() + 5 * known.std(ddof=1)
    places = np.arange(1, 401)
    places[[20, 30, 40, 50]] = places[[21, 31, 41, 51]]
    letters, others = ["A"] * 400, ["G"] * 400
    letters[20], others[20] = "G", "A"  # the same pair in the other order
    letters[30], others[30] = "T", "C"  # and on the other strand
    letters[40], others[40] = "A", "C"  # another pair
    letters[50], others[50] = "AT", "A"
    letters[60], others[60] = "A", "T"  # ambiguous ones are kept
    given = table(400, n=n, pos=places, ea=letters, oa=others, info=with_values(400, 1, r3=0.5))
    found = filter_summary_statistics(given, "mungesumstats")
    assert reasons(found) == {"low_info": 1, "large_n": 2, "multiallelic": 4}
    assert len(found.table) == 393


def test_rules_that_a_table_gives_nothing_to():
    found = filter_summary_statistics(table(), "mungesumstats")
    assert [rule.column for rule in found.idle] == ["info", "n"] and len(found.table) == 200
    assert not filter_summary_statistics(table(), "gwaslab").dropped
    with pytest.raises(OptionError, match="filters is 'other'; give one of mungesumstats, ldsc"):
        filter_summary_statistics(table(), "other")
    with pytest.raises(HarmonisationError, match="200 of 200 have A/T, C/G"):
        filter_summary_statistics(table(oa=["T"] * 200), "ldsc")
    empty = table().select(np.zeros(200, dtype=bool))
    assert len(filter_summary_statistics(empty, "ldsc").idle) == len(PRESETS["ldsc"])


def test_codes_of_a_table():
    made = table(
        9,
        build="GRCh38",
        rsid=["rs1", "rs2", "rsX", None, None, None, "rs7", "rs8", "rs9"],
        id=["1:1:A:G", "wrong", "1:3:A:G", "1:4:A:G", "wrong", ".", None, "rs8", "1_9_A_G"],
        chrom=["1", "X", "scaffold", None, "MT", "1", "1", "1", "1"],
        pos=[1, 2, 3, 4, 0, None, 7, 250_000_001, 9],
        ea=["A", "C", "AT", "A", "A", "D", None, "A", "T"],
        oa=["G", "G", "A", "AT", "T", "I", "G", "A", "C"],
    )
    assert gwaslab_status(made).tolist() == [
        3800090,  # single letters that are not ambiguous: only the last digit is known
        3810099, 3823499, 3866499, 3884099, 3895699, 3850799, 3854599, 3800090,
    ]  # fmt: skip
    assert gwaslab_status(table(1)).tolist() == [9990090]
    assert gwaslab_status(table(1, build="T2T")).tolist() == [9890090]


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_text(">1\nGGGCACACACAGGGTACGTTTTTACG\n")
    return Fasta(path)


def test_codes_against_a_genome(genome):
    rows = [
        (5, "G", "A"), (7, "A", "G"), (9, "C", "T"), (11, "T", "C"),  # four ways
        (15, "A", "T"), (16, "T", "A"),  # ambiguous
        (26, "GA", "G"), (2, "G", "GGCAT"), (8, "C", "CAC"), (13, "CT", "GG"),
    ]  # fmt: skip
    # Enough rows in one order for insertions and deletions of which both alleles are there.
    more = [(pos, "T", "G") for pos in (1, 2, 3, 12, 13, 14)] * 200
    pos, ea, oa = zip(*rows, *more, strict=True)
    given = table(len(pos), pos=list(pos), ea=list(ea), oa=list(oa), build="GRCh37")
    found = harmonise(given, genome, palindromic="keep_forward")
    status = gwaslab_status(found.table, found, on_genome=True)
    by_place = dict(zip(found.table.frame.select("pos", "ea").rows(), status.tolist(), strict=True))
    expected = {
        (5, "G"): 1990000, (7, "G"): 1990010, (9, "G"): 1990020, (11, "G"): 1990020,
        (15, "A"): 1990008, (16, "T"): 1990008, (26, "GA"): 1990103, (3, "G"): 1990268,
        (13, "CT"): 1990309,
    }  # fmt: skip
    assert {key: by_place[key] for key in expected} == expected


def test_codes_against_variants():
    given = table(4, ea=["A", "C", "A", "T"], oa=["T", "G", "G", "A"], eaf=[0.2, 0.8, 0.2, np.nan])
    target = pl.DataFrame(
        {
            "chrom": ["1"] * 4, "pos": [1, 2, 3, 4], "ea": ["A", "C", "A", "A"],
            "oa": ["T", "G", "G", "T"], "eaf": [0.2, 0.2, 0.2, 0.2],
        }
    )  # fmt: skip
    found = harmonise(given, target, palindromic="keep_forward")
    # Which allele is the genome's a list of variants does not say.
    assert gwaslab_status(found.table, found).tolist() == [9990091, 9990092, 9990090, 9990098]
