"""eQTL results: what each tool writes, and contexts brought together."""

import gzip
import logging

import numpy as np
import polars as pl
import pytest
from scipy import stats

from plait.errors import (
    FileFormatError,
    GenomeBuildError,
    LabelError,
    OptionError,
    ShapeError,
    UnknownDialectError,
)
from plait.io.eqtl import parse_variant_ids, read_contexts, scan_eqtl
from plait.numerics.student import log10_p_value
from tests.reference_files import REFERENCE, real_data

MADE = REFERENCE / "summary_statistics"
GTEX = (
    "gene_id\tvariant_id\ttss_distance\tma_samples\tma_count\tmaf\tpval_nominal\tslope\tslope_se\n"
)


def gtex(path, rows, build="b38"):
    """Rows are (gene, position, slope, slope_se)."""
    lines = [
        f"{gene}\tchr1_{pos}_A_G_{build}\t5\t6\t6\t0.1\t0.05\t{slope}\t{se}\n"
        for gene, pos, slope, se in rows
    ]
    path.write_bytes(gzip.compress((GTEX + "".join(lines)).encode()))
    return path


def test_tensorqtl():
    pairs = MADE / "tensorqtl.cis_qtl_pairs.chr1.parquet"
    scanned = scan_eqtl(pairs).collect()
    assert scanned.columns == ["gene", "variant", "beta", "se"] and scanned.height == 60
    raw = pl.read_parquet(pairs)
    t = (scanned["beta"] / scanned["se"]).to_numpy()
    np.testing.assert_allclose(2 * stats.t.sf(abs(t), 98), raw["pval_nominal"], rtol=1e-3)
    best = scan_eqtl(MADE / "tensorqtl.cis_qtl.txt.gz").collect()
    both = best.join(scanned, on=["gene", "variant"], suffix="_pairs")
    assert both.height == 3
    np.testing.assert_allclose(both["beta"], both["beta_pairs"], rtol=1e-5)
    interaction = MADE / "tensorqtl_interaction.cis_qtl_pairs.chr1.parquet"
    by_default = scan_eqtl(interaction).collect()
    assert by_default["beta"].to_list() == pl.read_parquet(interaction)["b_gi"].to_list()
    main = scan_eqtl(interaction, columns={"gene": "phenotype_id", "variant": "variant_id",
                                           "beta": "b_g", "se": "b_g_se"})  # fmt: skip
    assert main.collect()["beta"].to_list() == pl.read_parquet(interaction)["b_g"].to_list()


def test_qtltools(caplog):
    given = scan_eqtl(MADE / "qtltools_nominal_standard_errors.txt").collect()
    derived = scan_eqtl(MADE / "qtltools_nominal.txt", degrees_of_freedom=198).collect()
    assert given.select("gene", "variant", "beta").equals(derived.select("gene", "variant", "beta"))
    np.testing.assert_allclose(derived["se"], given["se"], rtol=1e-3)
    with caplog.at_level(logging.WARNING, "plait.io"):
        normal = scan_eqtl(MADE / "qtltools_nominal.txt").collect()
    assert "degrees_of_freedom" in caplog.text
    np.testing.assert_allclose(normal["se"], given["se"], rtol=0.02)


def test_fastqtl_of_gtex():
    path = MADE / "fastqtl_nominal.txt"
    found = scan_eqtl(path).collect()
    raw = pl.read_csv(path, separator="\t", has_header=False)
    assert found.height == raw.height == 60
    assert found["gene"].to_list() == raw[raw.columns[0]].to_list()
    t = np.abs(found["beta"] / found["se"]).to_numpy()
    np.testing.assert_allclose(2 * stats.t.sf(t, 198), raw[raw.columns[6]], rtol=1e-3)
    assert read_contexts({"a": path}).provenance.options["n"] == {"a": 200}


def test_matrixeqtl_and_fastqtl(tmp_path):
    matrix = tmp_path / "m.txt"
    matrix.write_text("SNP\tgene\tbeta\tt-stat\tp-value\tFDR\nrs1\tG1\t-0.3\t-2\t0.05\t0.1\n")
    assert scan_eqtl(matrix).collect().row(0) == ("G1", "rs1", -0.3, 0.15)
    fast = tmp_path / "f.txt"
    p = float(2 * stats.t.sf(2.5, 40))
    fast.write_text(f"G1 rs1 100 {p!r} 0.5\nG1 rs2 200 1e-200 0.5\n")
    with pytest.raises(UnknownDialectError, match="format='fastqtl'"):
        scan_eqtl(fast)
    made = scan_eqtl(fast, "fastqtl", degrees_of_freedom=40).collect()
    assert made["se"][0] == pytest.approx(0.2)
    assert made["se"][1] == pytest.approx(0.5 / stats.t.isf(5e-201, 40), rel=1e-6)
    with pytest.raises(UnknownDialectError, match="no header"):
        scan_eqtl(fast, "gtex")


LOST = "no usable standard error (zero, negative or missing, or to be made of a p of 0)"
PER_P = ("1e-20", "0", "1e-330", "1e-400", "0.0", "1")


def test_the_strongest_effects(tmp_path, caplog):
    """A p that a double rounds to 0 is read from its text; one that is written as 0 is no p."""
    rows = [f"g1 1 1 2 + 3 10 1_{i}_A_G 1 5 5 {p} 0.1 0.5 1\n" for i, p in enumerate(PER_P)]
    (tmp_path / "q.txt").write_text("".join(rows))
    (tmp_path / "f.txt").write_text(
        "".join(f"g1 1_{i}_A_G 10 {p} 0.5\n" for i, p in enumerate(PER_P))
    )
    # ln of the upper normal tail, to its first terms: -z^2 / 2 - ln(z) - ln(2 pi) / 2 - 1 / z^2.
    for file, options in (("q.txt", {}), ("f.txt", {"format": "fastqtl"})):
        caplog.clear()
        found = scan_eqtl(tmp_path / file, **options).collect()
        assert found["variant"].to_list() == ["1_0_A_G", "1_2_A_G", "1_3_A_G"]
        z = 0.5 / found["se"].to_numpy()
        np.testing.assert_allclose(z[0], stats.norm.isf(0.5e-20), rtol=1e-12)
        tail = -(z**2) / 2 - np.log(z) - np.log(2 * np.pi) / 2 - 1 / z**2
        np.testing.assert_allclose(tail[1:], np.log(10) * np.array([-330, -400]) - np.log(2))
        assert f"{LOST} in 3 rows (g1:1_1_A_G, g1:1_4_A_G, g1:1_5_A_G); left out" in caplog.text
        exact = scan_eqtl(tmp_path / file, degrees_of_freedom=838, **options).collect()
        t = 0.5 / exact["se"].to_numpy()
        np.testing.assert_allclose(log10_p_value(t, 838), [-20, -330, -400], rtol=1e-12)
    contexts = {"a": tmp_path / "q.txt", "b": gtex(tmp_path / "b.gz", [("g1", 9, 1, 0.1)])}
    caplog.clear()
    assert read_contexts(contexts).n_effects == 4
    assert f"a: {LOST} in 3 effects (g1:1_1_A_G," in caplog.text


def test_rows_without_a_usable_error(tmp_path, caplog):
    rows = [("G1", i, 0.5, se) for i, se in enumerate((0.25, 0, -1, "NA", 0, 0, 0))]
    path = gtex(tmp_path / "a.gz", [*rows, ("G2", 9, "NA", "NA")])
    with caplog.at_level(logging.INFO, "plait.io"):
        assert scan_eqtl(path).collect().height == 1
    named = ", ".join(f"G1:chr1_{i}_A_G_b38" for i in range(1, 6))
    assert f"{LOST} in 6 rows ({named}, ...); left out" in caplog.text
    assert "no estimate in 1 rows (G2:chr1_9_A_G_b38); left out" in caplog.text
    caplog.clear()
    assert read_contexts({"liver": path}).n_effects == 1
    assert f"liver: {LOST} in 6 effects ({named}, ...); left out" in caplog.text
    (tmp_path / "f.txt").write_text("g1 v1 1 x 0.5\n")
    with pytest.raises(FileFormatError, match="x"):
        scan_eqtl(tmp_path / "f.txt", "fastqtl")


def test_contexts_with_missing_cells(tmp_path):
    liver = gtex(tmp_path / "liver.gz", [("G1", 1, 0.1, 0.2), ("G1", 2, 0.3, 0.4)])
    more = gtex(tmp_path / "more.gz", [("G2", 3, 0.5, 0.6)])
    blood = gtex(tmp_path / "blood.gz", [("G2", 3, -1, 2), ("G1", 2, "NA", "NA"), ("G3", 4, 7, 8)])
    paths = {"liver": [liver, more], "blood": blood}
    outer = read_contexts(paths)
    assert outer.contexts == ("liver", "blood")
    assert outer.effects.tolist() == [
        "G1:chr1_1_A_G_b38", "G1:chr1_2_A_G_b38", "G2:chr1_3_A_G_b38", "G3:chr1_4_A_G_b38",
    ]  # fmt: skip
    np.testing.assert_array_equal(outer.bhat, [[0.1, 0], [0.3, 0], [0.5, -1], [0, 7]])
    np.testing.assert_array_equal(
        outer.missing_mask, [[False, True], [False, True], [False, False], [True, False]]
    )
    inner = read_contexts(paths, join="inner")
    assert inner.effects.tolist() == ["G2:chr1_3_A_G_b38"] and inner.missing_mask.sum() == 0
    by_gene = read_contexts({"blood": blood}, key=("gene",))
    assert by_gene.effects.tolist() == ["G2", "G3"]


def test_sample_sizes(tmp_path):
    """A row tells it by its alleles: ma_count copies of the rarer one, of frequency maf."""
    path = gtex(tmp_path / "a.gz", [("G1", 1, 0.1, 0.2), ("G1", 2, 0.3, 0.4)])  # 6 copies, 0.1
    (tmp_path / "m.txt").write_text(
        "SNP\tgene\tbeta\tt-stat\tp-value\tFDR\nrs1\tG1\t-0.3\t-2\t.05\t.1\n"
    )
    (tmp_path / "n.txt").write_text("g\tv\tb\ts\tN\nG1\tv1\t1\t1\t70\nG1\tv2\t1\t1\t74\n")
    own = {"gene": "g", "variant": "v", "beta": "b", "se": "s", "n": "N"}
    effects = read_contexts({"liver": path, "blood": tmp_path / "m.txt"})
    assert effects.provenance.options["n"] == {"liver": 30, "blood": None}
    given = read_contexts({"skin": tmp_path / "n.txt"}, columns=own)
    assert given.provenance.options["n"] == {"skin": 72}
    pairs = MADE / "tensorqtl.cis_qtl_pairs.chr1.parquet"
    assert read_contexts({"t": pairs}).provenance.options["n"] == {"t": 100}


def test_the_real_table_of_two_tissues():
    path = real_data("mash", "gtex_two_tissue_cis_eqtl.csv.gz")
    columns = {
        tissue: {
            "gene": "gene_id",
            "variant": "variant_id",
            "beta": f"slope_{tissue}",
            "se": f"slope_se_{tissue}",
        }
        for tissue in ("t1", "t2")
    }
    effects = read_contexts({"t1": path, "t2": path}, columns=columns)
    raw = pl.read_csv(path).filter(
        pl.any_horizontal(pl.col("slope_se_t1", "slope_se_t2").is_not_null())
    )
    assert effects.n_effects == raw.height == 12_709
    order = {key: row for row, key in enumerate(effects.effects.tolist())}
    rows = [
        order[f"{gene}:{variant}"] for gene, variant in raw.select("gene_id", "variant_id").rows()
    ]
    for column, tissue in enumerate(("t1", "t2")):
        expected = raw[f"slope_se_{tissue}"].cast(pl.Float64).fill_null(np.inf).to_numpy()
        np.testing.assert_array_equal(effects.shat[rows, column], expected)


def test_variant_ids():
    parsed = parse_variant_ids(pl.Series(["chr1_64764_C_T_b38", "X:5:A:AT", "rs1"]))
    assert parsed.rows() == [
        ("1", 64764, "C", "T", "GRCh38"),
        ("X", 5, "A", "AT", None),
        (None, None, None, None, None),
    ]


def test_builds_that_differ(tmp_path):
    new = gtex(tmp_path / "new.gz", [("G1", 1, 0.1, 0.2)])
    old = gtex(tmp_path / "old.gz", [("G1", 1, 0.1, 0.2)], build="b37")
    with pytest.raises(GenomeBuildError, match="GRCh37"):
        read_contexts({"new": new, "old": old})
    with pytest.raises(GenomeBuildError):
        read_contexts({"both": [new, old]})
    for key in (("variant", "gene"), ("variant",)):  # wherever the variant stands in the key
        with pytest.raises(GenomeBuildError, match="variants of old are on GRCh37"):
            read_contexts({"new": new, "old": old}, key)
    # Genes by themselves are the same on either.
    assert read_contexts({"new": new, "old": old}, ("gene",)).n_effects == 1


def test_repeated_effects(tmp_path):
    same = gtex(tmp_path / "a.gz", [("G1", 1, 0.1, 0.2)] * 2)
    assert read_contexts({"a": same}).n_effects == 1
    twice = gtex(tmp_path / "b.gz", [("G1", 1, 0.1, 0.2), ("G1", 1, 0.3, 0.2)])
    with pytest.raises(LabelError, match="several estimates"):
        read_contexts({"b": twice})


def test_what_is_refused(tmp_path):
    one = gtex(tmp_path / "a.gz", [("G1", 1, 0.1, 0.2)])
    other = gtex(tmp_path / "b.gz", [("G2", 1, 0.1, 0.2)])
    with pytest.raises(OptionError, match="join"):
        read_contexts({"a": one}, join="left")
    with pytest.raises(OptionError, match="key"):
        read_contexts({"a": one}, key=("tissue",))
    with pytest.raises(ShapeError, match="no files"):
        read_contexts({})
    with pytest.raises(LabelError, match="no effect is in all"):
        read_contexts({"a": one, "b": other}, join="inner")
    with pytest.raises(FileFormatError, match="no such file"):
        read_contexts({"a": tmp_path / "absent"})
    with pytest.raises(OptionError, match="unknown format"):
        scan_eqtl(one, "plonk")
    with pytest.raises(LabelError, match="no column 'x'"):
        scan_eqtl(one, columns={"gene": "x", "beta": "slope", "se": "slope_se"})
    no_gene = {"variant": "variant_id", "beta": "slope", "se": "slope_se"}
    with pytest.raises(LabelError, match="genes"):
        read_contexts({"a": one}, columns=no_gene)
    assert read_contexts({"a": one}, ("variant",), columns=no_gene).n_effects == 1
    plain = tmp_path / "p.txt"
    plain.write_text("a\tb\nx\ty\n")
    with pytest.raises(UnknownDialectError, match="no known output"):
        scan_eqtl(plain)
    wrong = gtex(tmp_path / "w.gz", [("G1", 1, "0,1", 0.2)])
    with pytest.raises(FileFormatError, match="0,1"):
        read_contexts({"a": wrong})
    cut = tmp_path / "cut.gz"
    cut.write_bytes(one.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="cut short"):
        read_contexts({"a": cut})
