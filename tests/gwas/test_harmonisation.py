"""Harmonisation: every case by hand, its invariances by Hypothesis, and joining contexts."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plait.data.summary_statistics import SummaryStatistics
from plait.data.variants import VariantTable
from plait.errors import (
    DataWarning,
    FileFormatError,
    GenomeBuildError,
    HarmonisationError,
    InputTypeError,
    NotAvailableError,
    OptionError,
    ShapeError,
)
from plait.gwas.combination import combine_summary_statistics
from plait.gwas.harmonisation import flip, harmonise
from plait.gwas.table_checks import check_table
from plait.gwas.variant_matching import CATEGORIES
from plait.io import (
    read_effects,
    read_summary_statistics,
    read_variants,
    write_effects,
    write_summary_statistics,
)
from tests.reference_files import real_data

ALLELES = ["A", "C", "G", "T", "AT", "ATT", "CA"]


def table(rows, build=None, **more):
    """Rows are (pos, ea, oa, eaf, beta)."""
    pos, ea, oa, eaf, beta = zip(*rows, strict=True)
    frame = {
        "chrom": ["1"] * len(rows),
        "pos": list(pos),
        "ea": list(ea),
        "oa": list(oa),
        "eaf": pl.Series(eaf, dtype=pl.Float64),
        "beta": pl.Series(beta, dtype=pl.Float64),
        "se": [0.1] * len(rows),
    }
    return SummaryStatistics.from_frame(pl.DataFrame({**frame, **more}), build=build)


def reference(*rows):
    pos, ea, oa, eaf = zip(*rows, strict=True)
    return pl.DataFrame(
        {
            "chrom": ["1"] * len(rows),
            "pos": pos,
            "ea": ea,
            "oa": oa,
            "eaf": pl.Series(eaf, dtype=pl.Float64),
        }
    )


def categories(result):
    return [CATEGORIES[number] for number in result.categories]


def assert_same(a, b):
    assert a.frame.select("chrom", "pos", "ea", "oa").equals(
        b.frame.select("chrom", "pos", "ea", "oa")
    )
    for name in ("beta", "se", "z", "eaf", "log10p", "n"):
        np.testing.assert_allclose(a.column(name), b.column(name), rtol=1e-12, atol=1e-14)


def test_the_five_cases():
    target = reference(*((pos, "A", "G", 0.3) for pos in range(1, 6)))
    result = harmonise(
        table(
            [
                (1, "A", "G", 0.3, 1.0),
                (2, "G", "A", 0.7, 1.0),
                (3, "T", "C", 0.3, 1.0),
                (4, "C", "T", 0.7, 1.0),
                (5, "A", "C", 0.3, 1.0),
                (6, "A", "G", 0.3, 1.0),
                (1, None, "G", 0.3, 1.0),
            ]
        ),
        target,
    )
    assert categories(result) == [
        "forward", "flipped", "strand", "strand_flipped", "no_match", "not_in_reference",
        "incomplete",
    ]  # fmt: skip
    np.testing.assert_array_equal(result.table.column("beta"), [1, -1, 1, -1])
    np.testing.assert_array_equal(result.table.column("z"), [10, -10, 10, -10])
    np.testing.assert_allclose(result.table.column("eaf"), 0.3)
    assert (result.table.frame["ea"] == "A").all()
    assert result.counts["forward"] == 1 and sum(result.counts.values()) == 7
    np.testing.assert_array_equal(result.reference_rows, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("ea", "oa", "eaf", "expected", "beta"),
    [
        ("A", "T", 0.2, "forward", 1),
        ("T", "A", 0.8, "flipped", -1),
        ("A", "T", 0.8, "strand_flipped", -1),
        ("T", "A", 0.2, "strand", 1),
        ("A", "T", 0.45, "palindromic_dropped", None),
        ("A", "T", None, "palindromic_dropped", None),
    ],
)
def test_palindromic_by_frequency(ea, oa, eaf, expected, beta):
    target = reference((1, "A", "T", 0.25), (2, "A", "G", 0.2))
    result = harmonise(table([(1, ea, oa, eaf, 1.0), (2, "A", "G", 0.2, 1.0)]), target)
    assert categories(result)[0] == expected
    if beta is not None:
        assert result.table.column("beta")[0] == beta
        # On either strand the frequency ends on the reference's side.
        assert result.table.column("eaf")[0] == pytest.approx(0.2)
        assert result.palindromic == {"by_frequency": 1, "by_assumption": 0, "dropped": 0}


def test_it_is_said_why_every_palindromic_row_is_left_out(caplog):
    rows = [(1, "A", "T", 0.2, 1.0), (2, "A", "G", 0.2, 1.0)]
    bare = reference((1, "A", "T", None), (2, "A", "G", None))
    known = reference((1, "A", "T", 0.2), (2, "A", "G", 0.2))
    assert len(harmonise(table(rows), bare).table) == 1
    said = "1 A/T and C/G rows of the table left out: there are no allele frequencies, which tell"
    assert said in caplog.text and "in the reference. Take a table and a reference" in caplog.text
    assert "palindromic='infer', as the other rows" in caplog.text
    caplog.clear()
    harmonise(table([(*row[:3], None, row[4]) for row in rows]), bare)
    assert "strand, in the table and in the reference." in caplog.text
    caplog.clear()
    harmonise(table(rows), bare, palindromic="keep_forward")
    harmonise(table(rows), known)
    harmonise(table(rows[1:]), bare)
    assert not caplog.text


def test_palindromic_rules():
    rows = [(1, "T", "A", None, 1.0), (2, "C", "G", 0.49, 1.0)]
    target = [(1, "A", "T", 0.25), (2, "C", "G", 0.3)]
    with pytest.raises(HarmonisationError, match="2 are A/T or C/G"):
        harmonise(table(rows), reference(*target))
    kept = harmonise(table(rows), reference(*target), palindromic="keep_forward")
    assert categories(kept) == ["flipped", "forward"]
    others = [(pos, "A", "G", 0.2) for pos in range(3, 203)]
    forward = [(pos, "A", "G", 0.2, 1.0) for pos in range(3, 203)]
    reverse = [(pos, "T", "C", 0.2, 1.0) for pos in range(3, 203)]
    mixed = forward[:150] + reverse[150:]
    for more, expected in (
        (forward, ["flipped", "forward"]),
        (reverse, ["strand", "strand_flipped"]),
        (mixed, ["palindromic_dropped"] * 2),
    ):
        result = harmonise(table(rows + more), reference(*target, *others), palindromic="infer")
        assert categories(result)[:2] == expected


def test_indels_are_exact_text():
    target = reference((1, "AT", "A", 0.2), (2, "C", "CGG", 0.2), (10, "TG", "T", 0.2))
    result = harmonise(
        table(
            [
                (1, "A", "AT", 0.8, 1.0),
                (2, "G", "GCC", 0.2, 1.0),
                (10, "TGC", "TC", 0.2, 1.0),
                (8, "CATG", "CAT", 0.2, 1.0),
            ]
        ),
        target,
    )
    assert categories(result)[:2] == ["flipped", "no_match"]
    # Letters that both alleles share are taken off, at the left with the position.
    assert sorted(categories(result)[2:]) == ["duplicate", "forward"]
    assert result.table.frame["pos"].to_list() == [1, 10]


def test_indels_that_are_alike_when_shortened():
    target = reference((1, "AT", "A", 0.2), (1, "AT", "ATT", 0.2))
    rows = [(1, "ATT", "AT", 0.8, 1.0), (1, "A", "AT", 0.8, 2.0)]
    for given_table in (table(rows), flip(table(rows))):
        result = harmonise(given_table, target)
        assert result.reference_rows.tolist() == [1, 0]
        assert result.table.column("beta").tolist() == [-1, -2]


def test_several_alleles_at_one_position_are_several_variants():
    target = reference((1, "A", "G", 0.2), (1, "C", "G", 0.1), (1, "AT", "A", 0.1))
    rows = [(1, "G", "C", 0.9, 1.0), (1, "A", "G", 0.2, 2.0), (1, "AT", "A", 0.1, 3.0)]
    result = harmonise(table(rows), target)
    assert result.table.keys.to_list() == ["1:1:G:C", "1:1:G:A", "1:1:A:AT"]
    assert result.table.column("beta").tolist() == [-1, 2, 3]


def test_duplicates_keep_the_largest_sample_then_the_smallest_p(caplog):
    rows = [(1, "A", "G", 0.2, 1.0), (1, "G", "A", 0.8, 2.0), (1, "A", "G", 0.2, 3.0)]
    target = reference((1, "A", "G", 0.2))
    by_n = harmonise(table(rows, n=[10.0, 30.0, 20.0]), target)
    assert by_n.table.column("beta").tolist() == [-2] and by_n.counts["duplicate"] == 2
    by_p = harmonise(table(rows, n=[10.0, 10.0, 10.0]), target)
    assert by_p.table.column("beta").tolist() == [3]
    assert "2 rows" in caplog.text


@st.composite
def tables(draw):
    n_rows = draw(st.integers(1, 12))
    rows = []
    for _ in range(n_rows):
        first, second = draw(
            st.lists(st.sampled_from(ALLELES), min_size=2, max_size=2, unique=True)
        )
        eaf = draw(st.one_of(st.none(), st.integers(1, 99).map(lambda i: i / 100)))
        rows.append((draw(st.integers(1, 6)), first, second, eaf, draw(st.integers(-9, 9)) / 4))
    n = draw(st.lists(st.integers(1, 3).map(float), min_size=n_rows, max_size=n_rows))
    return table(rows, n=n)


RULES = st.sampled_from(["drop", "keep_forward", "infer"])


@settings(max_examples=80, deadline=None)
@given(tables(), tables(), RULES)
def test_flipping_changes_nothing(given_table, target, rule):
    try:
        expected = harmonise(given_table, target, palindromic=rule)
    except HarmonisationError:
        with pytest.raises(HarmonisationError):
            harmonise(flip(given_table), target, palindromic=rule)
        return
    assert_same(expected.table, harmonise(flip(given_table), target, palindromic=rule).table)


@settings(max_examples=80, deadline=None)
@given(tables(), tables(), RULES)
def test_once_is_enough(given_table, target, rule):
    try:
        once = harmonise(given_table, target, palindromic=rule).table
    except HarmonisationError:
        return
    again = harmonise(once, target, palindromic=rule)
    assert_same(once, again.table)
    assert again.counts["forward"] == len(once)


def test_nothing_fits():
    with pytest.raises(HarmonisationError, match="genome build"):
        harmonise(table([(1, "A", "G", 0.1, 1.0)]), reference((2, "A", "G", 0.1)))
    with pytest.raises(HarmonisationError, match="1 have other alleles"):
        harmonise(table([(1, "A", "G", 0.1, 1.0)]), reference((1, "A", "C", 0.1)))
    with pytest.raises(HarmonisationError, match="lack a position"):
        harmonise(table([(1, None, "G", 0.1, 1.0)]), reference((1, "A", "C", 0.1)))


def test_builds():
    rows = [(100, "A", "G", 0.2, 1.0)]
    old, new = table(rows, build="hg19"), table(rows, build="GRCh38")
    with pytest.raises(GenomeBuildError, match="GRCh37"):
        harmonise(old, new)
    with pytest.raises(GenomeBuildError, match="beyond the end"):
        harmonise(table([(249_000_000, "A", "G", 0.2, 1.0)], build="GRCh38"), new)
    names = [f"rs{i}" for i in range(20)]
    here = table([(100 + i, "A", "G", 0.2, 0.01) for i in range(20)], rsid=names)
    there = table([(900 + i, "A", "G", 0.2, 0.01) for i in range(20)], id=names)
    with pytest.raises(GenomeBuildError, match="20 of the 20"):
        combine_summary_statistics({"a": here, "b": there})
    chromosomes = pl.lit("NC_000001.10")
    renamed = SummaryStatistics(here.frame.with_columns(chrom=chromosomes))
    message = r"20 of the 20 .* other names \('NC_000001.10' and '1'\): name the chromosomes"
    with pytest.raises(HarmonisationError, match=message):
        harmonise(renamed, here)


def test_frequencies_of_the_other_allele_are_called_so():
    rows = [(1 + i, "A", "G", 0.2, 0.01 * (-1) ** i) for i in range(20)]
    exchanged = [(pos, oa, ea, f, beta) for pos, ea, oa, f, beta in rows]
    (flag,) = harmonise(table(exchanged), table(rows)).checks.flags
    assert flag.startswith("20 frequencies differ from the reference's by more than 0.2: the col")
    with pytest.warns(DataWarning, match="the table of 'b': 20 frequencies .* may be exchanged"):
        combine_summary_statistics({"a": table(rows), "b": table(exchanged)})


def test_columns_that_were_taken_for_others():
    rows = [(1 + i, "A", "G", 0.2, 0.01) for i in range(20)]
    fine = table(rows)
    assert not check_table(fine).flags
    swapped = SummaryStatistics(fine.frame, counts={"bad_se": 3})
    (flag,) = check_table(swapped).flags
    assert flag.startswith("3 of 23 rows have a standard error that is zero, negative or missing")
    assert not check_table(SummaryStatistics(fine.frame, counts={"bad_se": 2})).flags
    numbered = pl.when(pl.int_range(20) < 7).then(pl.lit("0.25")).otherwise("ea")
    (flag,) = check_table(SummaryStatistics(fine.frame.with_columns(ea=numbered))).flags
    assert flag.startswith("7 of 20 rows have numbers for alleles")


def test_options_and_references():
    one = table([(1, "A", "G", 0.1, 1.0)])
    with pytest.raises(OptionError, match="palindromic"):
        harmonise(one, one, palindromic="guess")
    with pytest.raises(OptionError, match="palindromic_maf"):
        harmonise(one, one, palindromic_maf=0.7)
    with pytest.raises(InputTypeError, match="reference"):
        harmonise(one, [1])
    variants = VariantTable.of(["1"], [1], ["A"], ["G"], ["rs1"])
    assert categories(harmonise(one, variants)) == ["flipped"]
    with pytest.raises(OptionError, match="join"):
        combine_summary_statistics({"a": one}, join="left")
    with pytest.raises(ShapeError, match="no tables"):
        combine_summary_statistics({})


def test_checks():
    rng = np.random.default_rng(1)
    f, n = rng.uniform(0.1, 0.9, 500), np.full(500, 1000.0)
    se = 2.5 / np.sqrt(2 * f * (1 - f) * n)
    rows = [(i + 1, "A", "G", f[i], float(rng.normal() * se[i])) for i in range(500)]
    made = table(rows, n=n, se=se)
    checks = check_table(made, np.where(np.arange(500) < 3, f - np.sign(f - 0.5) * 0.25, f))
    assert checks.trait_sd == pytest.approx(2.5) and checks.trait_sd_cv < 1e-9
    assert checks.lambda_gc == pytest.approx(1, abs=0.3) and checks.sign_agreement == 1
    assert checks.p_disagreements == 0 and checks.chromosomes == {"1": 500}
    assert checks.frequency_differences == 3 and len(checks.flags) == 1
    few = np.full(500, 60.0)
    student = np.log10(2 * stats.t.sf(np.abs(made.column("z")) + 1, 50))
    shifted = made.column("beta") + np.sign(made.column("beta")) * se
    exact = [(*row[:4], effect) for row, effect in zip(rows, shifted, strict=True)]
    assert check_table(table(exact, n=few, se=se, log10p=student)).p_disagreements == 0
    assert check_table(table(exact, n=few * 100, se=se, log10p=student)).p_disagreements > 20
    wrong = table(rows, n=n, se=se * rng.uniform(0.2, 3, 500), log10p=np.full(500, -3.0))
    wrong = check_table(SummaryStatistics(wrong.frame.with_columns(z=0.0 - pl.col("z"))))
    assert len(wrong.flags) == 4 and np.isnan(wrong.lambda_gc)
    assert wrong.flags[3].startswith("all of 500 rows have p <= 0.0010, which chance does not make")


def test_combining_contexts():
    first = table([(1, "A", "G", 0.2, 1.0), (2, "A", "T", None, 2.0), (3, "C", "T", 0.5, 3.0)])
    second = table(
        [(1, "G", "A", 0.8, 4.0), (2, "A", "T", None, 5.0), (9, "C", "G", 0.5, 6.0),
         (3, "C", "A", 0.1, 7.0)]
    )  # fmt: skip
    both = combine_summary_statistics({"a": first, "b": second}).effects
    assert both.effects.tolist() == ["1:1:G:A", "1:2:T:A", "1:3:T:C", "1:9:G:C", "1:3:A:C"]
    np.testing.assert_array_equal(both.bhat[:, 0], [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(both.bhat[:, 1], [-4, 0, 0, 6, 7])
    np.testing.assert_array_equal(both.missing_mask[:, 1], [False, True, True, False, False])
    assert both.contexts == ("a", "b")
    inner = combine_summary_statistics({"a": first, "b": second}, join="inner").effects
    assert inner.effects.tolist() == ["1:1:G:A"]
    target = VariantTable.of(["1", "1"], [1, 9], ["A", "G"], ["G", "C"])
    fixed = combine_summary_statistics(
        {"a": first, "b": second}, reference=target, palindromic="keep_forward", scale="z"
    ).effects
    assert fixed.effects.tolist() == ["1:1:A:G", "1:9:G:C"]
    np.testing.assert_allclose(fixed.bhat, [[-10, 40], [0, 60]])
    apart = table([(7, "A", "G", 0.2, 1.0), (1, "A", "C", 0.1, 1.0)])
    with pytest.raises(HarmonisationError):
        combine_summary_statistics({"a": first, "b": apart}, join="inner")


@pytest.mark.parametrize("strands", ["other", "both"])
def test_new_variants_of_a_table_on_the_other_strand(strands, caplog):
    """A/T that only later tables have: their strand is that of the tables before, or unknown."""
    null = 0.1 * stats.norm.ppf((np.arange(200) + 0.5) / 200)
    usual = [(1 + k, "A", "G", None, effect) for k, effect in enumerate(null.tolist())]
    n_turned = 200 if strands == "other" else 100
    turned = [(row[0], "T", "C", *row[3:]) for row in usual[:n_turned]] + usual[n_turned:]
    second = table([*turned, (300, "A", "T", None, 2.0), (301, "A", "C", None, 4.0)])
    third = table([*usual, (300, "A", "T", None, 5.0), (301, "T", "G", None, 6.0)])
    found = combine_summary_statistics(
        {"a": table(usual), "b": second, "c": third}, palindromic="infer"
    )
    rows = found.effects.provenance.options["rows"]
    effects = dict(zip(found.effects.effects.tolist(), found.effects.bhat.tolist(), strict=True))
    if strands == "other":
        assert effects["1:300:A:T"] == [0, 2, -5] and effects["1:301:G:T"] == [0, 4, 6]
        assert rows["b"]["added"] == 2 and rows["b"]["palindromic_dropped"] == 0
    else:
        assert "'b' that the tables before it lack are left out (1 row)" in caplog.text
        assert effects["1:300:T:A"] == [0, 0, 5] and effects["1:301:C:A"] == [0, 4, 6]
        assert rows["b"]["added"] == 1 and rows["b"]["palindromic_dropped"] == 1
    assert sum(rows["b"].values()) - rows["b"]["added"] == 202


@pytest.mark.parametrize("scale", ["beta", "z"])
def test_what_looks_wrong_with_a_table_is_warned_of(scale):
    """Here z without its sign: in the words of the checks, once, and of the wrong table alone."""
    rows = [(pos, "A", "G", 0.2, 0.1 * (-1) ** pos) for pos in range(1, 9)]
    fine = table(rows)
    unsigned = SummaryStatistics(fine.frame.with_columns(pl.col("z").abs()))
    (flag,) = check_table(unsigned).flags
    assert flag == "z and beta differ in sign in 50.00% of rows"
    with pytest.warns(DataWarning) as caught:
        combine_summary_statistics({"a": fine, "b": unsigned}, scale=scale)
    assert [str(warning.message) for warning in caught] == [f"the table of 'b': {flag}."]
    assert caught[0].filename == __file__
    combine_summary_statistics({"a": fine, "b": fine}, scale=scale)


def test_messages_name_the_table_that_is_the_reference():
    """Where no reference was given there is none to speak of."""
    first = table([(1, "A", "G", 0.1, 1.0), (2, "C", "T", 0.2, 1.0)])
    apart = table([(3, "A", "G", 0.1, 1.0)])
    with pytest.raises(HarmonisationError, match="of 'b' fits the 2 variants of the table of 'a'"):
        combine_summary_statistics({"a": first, "b": apart}, join="inner")
    with pytest.raises(HarmonisationError, match="of 'b' fits the 2 variants of the reference"):
        combine_summary_statistics({"a": first, "b": apart}, reference=first)
    three = {"a": first, "b": first, "c": apart}
    with pytest.warns(DataWarning, match="of 'c' fits the 2 variants of the tables before"):
        combine_summary_statistics(three)


def test_an_outer_join_of_tables_that_share_nothing():
    """All of their cells, each with nothing beside it, which is said; other alleles are refused."""
    first = table([(1, "A", "G", 0.1, 1.0), (2, "C", "T", 0.2, 2.0)])
    apart = table([(3, "A", "T", 0.1, 3.0), (4, "G", "T", 0.1, 4.0), (2, "C", "G", 0.1, 5.0)])
    said = r"(?s)different genome builds, cover other .* no cell beside another table's"
    with pytest.warns(DataWarning, match=said):
        found = combine_summary_statistics({"a": first, "b": apart, "c": first})
    assert found.variants["pos"].to_list() == [1, 2, 3, 4, 2]
    both = found.effects
    np.testing.assert_array_equal(
        both.bhat, [[1, 0, 1], [2, 0, 2], [0, 3, 0], [0, 4, 0], [0, 5, 0]]
    )
    np.testing.assert_array_equal(np.isfinite(both.shat), both.bhat != 0)
    assert both.provenance.options["rows"]["b"]["added"] == 3
    with pytest.raises(HarmonisationError, match="fits the 2 variants"):
        combine_summary_statistics({"a": first, "b": apart}, join="inner")
    alleles = table([(1, "A", "C", 0.1, 1.0), (2, "C", "G", 0.2, 2.0)])
    with pytest.raises(HarmonisationError, match="Positions are there and alleles differ"):
        combine_summary_statistics({"a": first, "b": alleles})


def test_paths(tmp_path):
    """Files are as good as tables, also the contexts of one file; what is neither is refused."""
    one = table([(1, "A", "G", 0.1, 1.0), (2, "C", "T", 0.2, 1.0)])
    place, listed = tmp_path / "one.tsv", tmp_path / "g.bim"
    write_summary_statistics(one, place)
    listed.write_text("1 rs1 0 1 G A\n1 rs2 0 2 C T\n")
    found = harmonise(place, str(listed))
    assert categories(found) == ["flipped", "forward"]
    assert_same(found.table, harmonise(read_summary_statistics(place), read_variants(listed)).table)
    both = combine_summary_statistics({"a": place, "b": str(place)}, reference=listed).effects
    assert both.contexts == ("a", "b") and len(both.bhat) == 2
    wide = "chrom pos id oa ea eaf beta.x se.x log10p.x n.x beta.y se.y log10p.y n.y\n"
    wide += "1 1 rs1 G A .3 1 1 -0.499 9 2 1 -1.342 9\n"
    (tmp_path / "wide.tsv").write_text(wide.replace(" ", "\t"))
    two = combine_summary_statistics({name: tmp_path / "wide.tsv" for name in "xy"}).effects
    assert two.bhat.tolist() == [[1.0, 2.0]]
    with pytest.raises(InputTypeError, match="summary statistics are of the type int"):
        combine_summary_statistics({"a": 1})
    with pytest.raises(FileFormatError, match=r"Theirs is the \.bim beside it"):
        harmonise(place, tmp_path / "g.bed")


def test_the_build_of_combined_tables(tmp_path):
    """That of the reference, or of the first table that says it; kept in the store."""
    rows = [(1, "A", "G", 0.2, 1.0), (3, "C", "T", 0.5, 3.0)]
    unknown, known = table(rows), table(rows, build="hg38")

    def build(tables, **more):
        write_effects(
            combine_summary_statistics(tables, **more).effects, tmp_path / "e.zarr", overwrite=True
        )
        return read_effects(tmp_path / "e.zarr").provenance.options["build"]

    assert build({"a": unknown, "b": unknown}) is None
    assert build({"a": unknown, "b": known}) == "GRCh38"
    assert build({"a": known, "b": unknown}, join="inner") == "GRCh38"
    assert build({"a": unknown, "b": unknown}, reference=known) == "GRCh38"


def test_names_of_combined_variants():
    """Those of a scan: ids that are known and one variant's only, else position and alleles."""
    rows = [(pos, "A", "G", 0.2, 1.0) for pos in range(1, 8)]
    ids = ["rs1", "same", "same", ".", "1:6:G:A", "rs6", "1_7_G_A"]
    first = table(rows, id=ids, rsid=[None] * 6 + ["rs7"])
    second = table([*rows[:1], (9, "C", "T", 0.1, 2.0)], id=["other", "rs9"])
    found = combine_summary_statistics({"a": first, "b": second})
    names = ["rs1", "1:2:G:A", "1:3:G:A", "1:4:G:A", "1:5:G:A", "rs6", "rs7", "rs9"]
    assert found.effects.effects.tolist() == found.variants["name"].to_list() == names
    assert found.variants.row(-1) == ("rs9", "1", 9, "rs9", "T", "C")
    assert found.variants["id"].to_list()[1:4] == ["same", "same", None]
    target = VariantTable.of(["1", "1"], [1, 2], ["A", "A"], ["G", "G"], ["x", "."])
    listed = combine_summary_statistics({"a": first, "b": second}, reference=target)
    assert listed.effects.effects.tolist() == ["x", "1:2:A:G"]


def test_contexts_of_z_only():
    made = SummaryStatistics.from_frame(
        pl.DataFrame({"chrom": ["1"], "pos": [1], "ea": ["A"], "oa": ["G"], "z": [2.0]})
    )
    with pytest.raises(NotAvailableError):
        combine_summary_statistics({"a": made})
    assert combine_summary_statistics({"a": made}, scale="z").effects.bhat.tolist() == [[2.0]]


def test_a_real_table_against_its_genotypes():
    from plait.io.summary_statistics import chromosome_names, read_summary_statistics

    made = read_summary_statistics(real_data("attention", "quant_trait_sumstats.csv.gz"))
    bim = real_data("attention", "g1000_eur_subset.bim.gz")
    columns = ("chrom", "id", "cm", "pos", "ea", "oa")
    import gzip

    lines = [line.split() for line in gzip.decompress(bim.read_bytes()).decode().splitlines()]
    target = pl.DataFrame(lines, schema=list(columns), orient="row")
    target = target.with_columns(chromosome_names(target["chrom"]), pl.col("pos").cast(pl.Int64))
    result = harmonise(made, target, palindromic="keep_forward")
    fits = sum(result.counts[name] for name in CATEGORIES[:4])
    assert fits > 0.99 * len(made)
    turned = harmonise(flip(made), target, palindromic="keep_forward")
    assert_same(result.table, turned.table)


def test_codes_of_the_catalogue():
    target = reference(
        (1, "A", "G", 0.2), (2, "A", "G", 0.2), (3, "A", "G", 0.2), (4, "A", "G", 0.2),
        (5, "A", "T", 0.2), (6, "A", "T", 0.2), (7, "A", "T", 0.2), (8, "A", "T", 0.2),
        (9, "C", "G", np.nan), (10, "C", "G", np.nan),
    )  # fmt: skip
    rows = [
        (1, "A", "G", 0.2, 1), (2, "G", "A", 0.8, 1), (3, "T", "C", 0.2, 1), (4, "C", "T", 0.8, 1),
        (5, "A", "T", 0.2, 1), (6, "T", "A", 0.8, 1), (7, "T", "A", 0.2, 1), (8, "A", "T", 0.8, 1),
        (9, "C", "G", 0.2, 1), (10, "G", "C", 0.2, 1), (11, "A", "G", 0.2, 1),
    ]  # fmt: skip
    found = harmonise(table(rows), target, palindromic="keep_forward")
    assert found.hm_code.tolist() == [10, 11, 12, 13, 1, 2, 3, 4, 5, 6]
    assert found.table.column("beta").tolist() == [1, -1, 1, -1, 1, -1, 1, -1, 1, -1]
    assert harmonise(table(rows), target).hm_code.tolist() == [10, 11, 12, 13, 1, 2, 3, 4]
