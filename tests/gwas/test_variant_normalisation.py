"""One way of writing an insertion or deletion: examples by hand, and all ways by brute force."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.gwas import variant_normalisation
from plait.gwas.variant_normalisation import normalised, on_genome
from plait.io.fasta import Fasta


def genome_of(folder, **sequences):
    path = folder / "genome.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in sequences.items()))
    return Fasta(path)


def rows_of(variants, chrom="1"):
    pos, ea, oa = zip(*variants, strict=True)
    frame = {"chrom": [chrom] * len(pos), "pos": pos, "ea": ea, "oa": oa}
    texts = dict.fromkeys(("chrom", "ea", "oa"), pl.String)
    return pl.DataFrame(frame, schema_overrides=texts | {"pos": pl.Int64})


def written(variants, genome=None):
    return normalised(rows_of(variants), genome).select("pos", "oa", "ea").rows()


@pytest.mark.parametrize(
    ("pos", "ref", "alt"),
    [
        (6, "CAC", "C"),  # not as far to the left as it goes
        (8, "CAC", "C"),
        (9, "ACA", "A"),
        (10, "CAG", "G"),
        (3, "GCACA", "GCA"),  # letters at the right that both have
        (2, "GGCA", "GG"),  # letters at the left that both have
        (2, "GGCACAC", "GGCAC"),  # both
        (3, "GCA", "G"),  # as it is to be
    ],
)
def test_a_short_tandem_repeat(tmp_path, pos, ref, alt):
    """The deletion of CA from GGGCACACACAGGG, of Tan, Abecasis and Kang (2015)."""
    genome = genome_of(tmp_path, chr1="GGGCACACACAGGG")
    assert written([(pos, alt, ref)], genome) == [(3, "GCA", "G")]
    assert written([(pos, ref, alt)], genome) == [(3, "G", "GCA")]  # whichever is the effect's


@pytest.mark.parametrize(
    ("pos", "ref", "alt", "expected"),
    [
        (4, "GCATG", "GCGTG", (6, "A", "G")),  # a single letter with its neighbours
        (5, "CATG", "TTTG", (5, "CA", "TT")),  # several letters
        (4, "G", "GT", (4, "G", "GT")),
        (11, "T", "TT", (9, "A", "AT")),  # an insertion into a run of T
        (11, "TT", "T", (9, "AT", "A")),
        (1, "TG", "G", (1, "TG", "G")),  # at the very beginning nothing is left of it
    ],
)
def test_by_hand(tmp_path, pos, ref, alt, expected):
    genome = genome_of(tmp_path, **{"1": "TGAGCATGATTTC"})
    assert written([(pos, alt, ref)], genome) == [expected]


def test_without_a_genome_ends_are_taken_off():
    assert written([(2, "GG", "GGCA"), (6, "C", "CAC"), (5, "ACG", "ATG"), (3, "A", "G")]) == [
        (3, "GCA", "G"), (6, "CAC", "C"), (6, "T", "C"), (3, "G", "A"),
    ]  # fmt: skip


def test_what_is_left_as_it_is(tmp_path):
    genome = genome_of(tmp_path, **{"1": "GGGCACACACAGGG"})
    rows = [
        (8, "GTC", "G"),  # neither stands in the genome
        (14, "GC", "GCA"),  # beyond the end
        (8, "<DEL>", "C"),  # no letters
        (None, "CAC", "C"),
        (8, None, "CAC"),
        (80, "CAC", "C"),  # beyond the end
        (8, "CAC", "CAC"),
    ]
    assert normalised(rows_of(rows), genome).equals(rows_of(rows))
    elsewhere = rows_of([(8, "CAC", "C")], "7")
    assert normalised(elsewhere, genome).equals(elsewhere)
    assert on_genome(rows_of([(6, "CAC", "C"), *rows]), genome).tolist() == [
        [True, True], [False, False], [False, False], [False, True], [False, False],
        [False, False], [False, False], [True, True],
    ]  # fmt: skip


def ways_of_writing(reference, other):
    """All (pos, ref, alt) that make one sequence of another."""
    found = []
    for start in range(len(reference)):
        for stop in range(start + 1, len(reference) + 1):
            size = len(other) - len(reference) + stop - start
            alt = other[start : start + size]
            if size > 0 and reference[:start] + alt + reference[stop:] == other:
                found.append((start + 1, reference[start:stop], alt))
    return found


@settings(max_examples=150, deadline=None)
@given(st.text("AC", min_size=3, max_size=12), st.data(), st.sampled_from([1, 2, 256]))
def test_all_ways_of_writing_a_variant_become_one(tmp_path_factory, reference, data, reach):
    start = data.draw(st.integers(0, len(reference) - 1))
    stop = data.draw(st.integers(start, len(reference)))
    inserted = data.draw(st.text("AC", max_size=4))
    other = reference[:start] + inserted + reference[stop:]
    ways = ways_of_writing(reference, other)
    if other == reference or not ways:
        return
    genome = genome_of(tmp_path_factory.mktemp("genome"), **{"1": reference})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variant_normalisation, "_REACH", reach)
        found = written([(pos, alt, ref) for pos, ref, alt in ways], genome)
        turned = written([(pos, ref, alt) for pos, ref, alt in ways], genome)
    assert len(set(found)) == 1
    assert [(pos, ref, alt) for pos, alt, ref in turned] == found
    pos, ref, alt = found[0]
    assert (pos, ref, alt) in ways  # it is the same variant
    shortest = min(len(ref) for _, ref, _ in ways)
    assert len(ref) == shortest
    assert pos == min(pos for pos, ref, _ in ways if len(ref) == shortest)
