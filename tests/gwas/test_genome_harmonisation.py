"""A genome as reference: every case by hand, what it cannot tell, and other genome builds."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.errors import GenomeBuildError, HarmonisationError, OptionError
from plait.gwas import combine_summary_statistics, harmonise
from plait.gwas.harmonisation import flip
from plait.gwas.table_checks import _LENGTHS, build_of_lengths
from plait.io.fasta import Fasta
from tests.gwas.test_harmonisation import assert_same, categories, table

REFERENCE = "GGGCACACACAGGGTACGTTTTTACG"
#            12345678901234567890123456


@pytest.fixture
def genome(tmp_path):
    return written(tmp_path, REFERENCE)


def written(folder, bases):
    path = folder / "genome.fa"
    path.write_text(f">chr1\n{bases}\n")
    return Fasta(path)


def test_the_cases(genome):
    given_table = table(
        [
            (5, "G", "A", 0.2, 1.0),  # the genome has A there
            (5, "A", "G", 0.2, 2.0),
            (5, "C", "T", 0.2, 3.0),
            (7, "T", "C", 0.2, 4.0),
            (4, "A", "A", 0.2, 5.0),
            (3, "GCA", "G", 0.2, 6.0),
            (99, "A", "G", 0.2, 7.0),
            (15, None, "A", 0.2, 8.0),
            (6, "CTC", "A", 0.2, 9.0),
            (16, "C", "T", 0.2, 1.0),  # by its complement alone
        ],
        n=np.arange(10.0, 0.0, -1.0),
    )
    found = harmonise(given_table, genome)
    assert categories(found) == [
        "forward", "duplicate", "duplicate", "strand_flipped", "no_match", "indel_undecided",
        "not_in_reference", "incomplete", "no_match", "strand",
    ]  # fmt: skip
    assert found.table.frame.select("pos", "oa", "ea").rows() == [
        (5, "A", "G"), (7, "A", "G"), (16, "A", "G"),
    ]  # fmt: skip
    assert found.table.column("beta").tolist() == [1, -4, 1]
    np.testing.assert_allclose(found.table.column("eaf"), [0.2, 0.8, 0.2])
    assert found.hm_code.tolist() == [10, 13, 12]


def test_strand(genome):
    rows = [(5, "C", "T", 0.2, 1.0), (5, "T", "C", 0.2, 1.0)]
    for row, expected, beta in zip(rows, ("strand", "strand_flipped"), (1, -1), strict=True):
        found = harmonise(table([row]), genome)
        assert categories(found) == [expected]
        assert found.table.frame.select("oa", "ea").rows() == [("A", "G")]
        assert found.table.column("beta").tolist() == [beta]


def test_palindromic_by_rule(genome):
    rows = [(5, "T", "A", 0.1, 1.0), (7, "A", "T", 0.1, 2.0), (8, "G", "C", 0.1, 3.0),
            (8, "A", "T", 0.1, 3.0)]  # fmt: skip
    with pytest.raises(HarmonisationError, match=r"3 are A/T or C/G.*1 have other alleles"):
        harmonise(table(rows), genome)
    kept = harmonise(table(rows), genome, palindromic="keep_forward")
    assert categories(kept) == ["forward", "flipped", "forward", "no_match"]
    assert kept.table.column("beta").tolist() == [1, -2, 3]
    assert kept.table.frame["oa"].to_list() == ["A", "A", "C"]
    assert kept.palindromic == {"by_frequency": 0, "by_assumption": 3, "dropped": 0}
    assert kept.hm_code.tolist() == [5, 6, 5]


def test_palindromic_with_their_neighbours(genome):
    """CAC and CTC are A and T at the letter between."""
    rows = [(4, "CTC", "CAC", 0.1, 1.0), (7, "C", "A", 0.1, 2.0)]
    found = harmonise(table(rows), genome)
    assert categories(found) == ["palindromic_dropped", "forward"]
    kept = harmonise(table(rows), genome, palindromic="keep_forward")
    assert kept.table.frame.select("pos", "oa", "ea").rows()[0] == (5, "A", "T")
    target = pl.DataFrame({"chrom": ["1"], "pos": [5], "ea": ["T"], "oa": ["A"]})
    with pytest.raises(HarmonisationError, match="1 are A/T or C/G"):
        harmonise(table(rows[:1]), target)


def test_palindromic_strand_inferred(tmp_path):
    genome = written(tmp_path, "AC" * 300)
    forward = [(2 * k + 1, "G", "A", 0.1, 1.0) for k in range(200)]
    reverse = [(2 * k + 1, "C", "T", 0.1, 1.0) for k in range(200)]
    palindromic = [(501, "T", "A", 0.1, 1.0), (502, "C", "G", 0.1, 2.0)]
    for others, expected, beta in (
        (forward, ["forward", "flipped"], [1, -2]),
        (reverse, ["strand_flipped", "strand"], [-1, 2]),
    ):
        found = harmonise(table(others + palindromic), genome, palindromic="infer")
        assert categories(found)[-2:] == expected
        assert found.table.frame["oa"].to_list()[-2:] == ["A", "C"]
        assert found.table.column("beta").tolist()[-2:] == beta
    mixed = harmonise(table(forward[:100] + reverse[100:] + palindromic), genome,
                      palindromic="infer")  # fmt: skip
    assert mixed.counts["palindromic_dropped"] == 2


def test_insertions_say_nothing_of_the_strand(tmp_path):
    """They are written on the genome's strand or not found at all."""
    genome = written(tmp_path, "AC" * 300)
    reverse = [(2 * k + 1, "C", "T", 0.1, 1.0) for k in range(100)]
    inserted = [(2 * k + 1, "AG" * (k % 3 + 1), "A", 0.1, 1.0) for k in range(200)]
    asked = [(501, "T", "A", 0.1, 1.0)]
    found = harmonise(table(reverse + inserted + asked), genome, palindromic="infer")
    assert categories(found)[-1] == "strand_flipped"
    few = [(2 * k + 1, "G", "A", 0.1, 1.0) for k in range(100, 197)]
    mixed = few + reverse[:3]  # 97 of 100 on the genome's strand
    found = harmonise(table(mixed + inserted + asked), genome, palindromic="infer")
    assert categories(found)[-1] == "palindromic_dropped"


def test_indels_move_to_the_left(genome):
    rows = [(8, "C", "CAC", 0.2, 1.0), (19, "T", "TT", 0.2, 2.0), (22, "TTT", "TT", 0.2, 3.0),
            (17, "CG", "C", 0.2, 4.0), (26, "GA", "G", 0.2, 5.0)]  # fmt: skip
    others = [(5, "G", "A", 0.2, 1.0), (7, "C", "A", 0.2, 1.0)]
    found = harmonise(table(rows + others), genome)
    assert found.table.frame.select("pos", "oa", "ea").rows() == [
        (3, "GCA", "G"), (18, "GT", "G"), (18, "G", "GT"), (17, "C", "CG"), (26, "G", "GA"),
        (5, "A", "G"), (7, "A", "C"),
    ]  # fmt: skip
    assert found.by_order.tolist() == [True, True, True, True, False, False, False]
    assert set(categories(found)) == {"forward"}
    turned = harmonise(flip(table(rows + others)), genome)
    assert set(categories(turned)) == {"flipped"}
    assert_same(found.table, turned.table)
    # Rows in both orders do not tell which of two alleles that both stand there is the genome's.
    mixed = harmonise(table([*rows, others[0], (7, "A", "C", 0.8, -1.0)]), genome)
    assert mixed.counts["indel_undecided"] == 4
    assert mixed.table.frame["pos"].to_list() == [26, 5, 7]


def test_indels_of_the_table_and_of_the_reference(genome):
    """Each written in another place, and with other neighbours."""
    rows = [(10, "CAG", "G", 0.2, 1.0), (22, "T", "TT", 0.2, 2.0)]
    target = pl.DataFrame({
        "chrom": ["1", "1"], "pos": [2, 18], "ea": ["GG", "GT"], "oa": ["GGCA", "G"]
    })  # fmt: skip
    with pytest.raises(HarmonisationError):
        harmonise(table(rows), target)
    found = harmonise(table(rows), target, genome=genome)
    assert categories(found) == ["flipped", "flipped"]
    assert found.table.frame.select("pos", "ea", "oa").rows() == [
        (2, "GG", "GGCA"), (18, "GT", "G")
    ]  # fmt: skip
    assert found.table.column("beta").tolist() == [-1, -2]
    combined = combine_summary_statistics(
        {"a": table(rows), "b": table([(6, "C", "CAC", 0.8, 5.0)])}, genome=genome
    ).effects
    assert combined.bhat.tolist() == [[1, -5], [2, 0]]


def test_tables_on_a_genome(genome):
    """Both are brought to it: the genome's allele is the other one, whichever table is first."""
    first = table([(5, "A", "G", 0.8, 1.0), (8, "C", "CAC", 0.2, 2.0), (7, "C", "A", 0.1, 3.0)])
    second = table([(5, "C", "T", 0.2, 5.0), (24, "A", "G", 0.3, 6.0)])
    options = {"reference": genome, "palindromic": "keep_forward"}
    found = combine_summary_statistics({"a": first, "b": second}, **options).effects
    assert found.effects.tolist() == ["1:5:A:G", "1:7:A:C", "1:24:A:G"]
    np.testing.assert_array_equal(found.bhat, [[-1, 5], [3, 0], [0, -6]])
    assert found.provenance.options["rows"]["a"]["indel_undecided"] == 1
    assert found.provenance.options["rows"]["b"]["added"] == 1
    turned = combine_summary_statistics({"b": second, "a": first}, **options).effects
    assert sorted(turned.effects) == sorted(found.effects)


ALLELES = st.one_of(st.sampled_from("ACGT"), st.text("ACGT", min_size=1, max_size=3))


@settings(max_examples=150, deadline=None)
@given(
    st.text("ACGT", min_size=6, max_size=30),
    st.lists(
        st.tuples(st.integers(1, 30), ALLELES, ALLELES),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    st.sampled_from(["drop", "keep_forward", "infer"]),
)
def test_flipping_changes_nothing_and_once_is_enough(tmp_path_factory, bases, rows, rule):
    genome = written(tmp_path_factory.mktemp("genome"), bases)
    made = table([(pos, ea, oa, 0.25, float(k)) for k, (pos, ea, oa) in enumerate(rows)])
    try:
        found = harmonise(made, genome, palindromic=rule)
    except HarmonisationError:
        with pytest.raises(HarmonisationError):
            harmonise(flip(made), genome, palindromic=rule)
        return
    assert_same(found.table, harmonise(flip(made), genome, palindromic=rule).table)
    again = harmonise(found.table, genome, palindromic=rule)
    assert_same(found.table, again.table)
    assert again.counts["forward"] == len(found.table)
    for chrom, pos, oa in found.table.frame.select("chrom", "pos", "oa").iter_rows():
        assert genome.sequence(chrom, pos, pos + len(oa) - 1) == oa


def test_another_genome_build(tmp_path, caplog):
    random = np.random.default_rng(5)
    bases = "".join(random.choice(list("ACGT"), 4000))
    genome = written(tmp_path, bases)
    right, shifted = [], []
    for pos in range(1, 2000, 4):
        ref = bases[pos - 1]
        alt = "ACGT"["TGCA".index(ref)] if pos % 3 == 0 else "CATG"["ACGT".index(ref)]
        right.append((pos, alt, ref, 0.2, 1.0))
        shifted.append((pos + 1000, alt, ref, 0.2, 1.0))
    assert harmonise(table(right), genome, palindromic="keep_forward").counts["forward"] == 500
    assert not caplog.records
    with pytest.raises(GenomeBuildError, match=r"A/T and C/G variants.*another genome build"):
        harmonise(table(shifted), genome)
    # Without A/T and C/G nothing is certain, but half of the rows on the other strand is telling.
    others = [row for row in shifted if {row[1], row[2]} not in ({"A", "T"}, {"C", "G"})]
    assert harmonise(table(others), genome).counts["no_match"] == 0
    assert "another genome build" in caplog.text


def test_builds_by_lengths(tmp_path, genome):
    names = [*map(str, range(1, 23)), "X"]
    for build, lengths in _LENGTHS.items():
        known = dict(zip(names, lengths, strict=True))
        assert build_of_lengths(known | {"MT": 16569}) == build
        assert build_of_lengths({"21": known["21"]}) == build
        assert build_of_lengths(known | {"21": 9}) is None
    assert build_of_lengths({}) is None
    stated = table([(5, "G", "A", 0.2, 1.0)], build="GRCh37")
    with pytest.raises(GenomeBuildError, match="GRCh38"):
        harmonise(stated, genome, reference_build="GRCh38")
    assert harmonise(stated, genome).table.build == "GRCh37"
    unstated = harmonise(table([(5, "G", "A", 0.2, 1.0)]), genome, reference_build="hg19")
    assert unstated.table.build == "GRCh37"


def test_a_genome_beside_a_genome(genome):
    with pytest.raises(OptionError, match="leave it out"):
        harmonise(table([(5, "G", "A", 0.2, 1.0)]), genome, genome=genome)
    with pytest.raises(HarmonisationError, match=r"fits .*genome\.fa: 1 are at other positions"):
        harmonise(table([(99, "G", "A", 0.2, 1.0)]), genome)
