"""GWAS-SSF: written, read back, and refused where it does not keep to the standard."""

import gzip
import hashlib
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plait.data.summary_statistics import FLOATS, SummaryStatistics
from plait.errors import FileFormatError, InputError, MissingSidecarError, OptionError, OutputError
from plait.io.gwas_ssf import read_gwas_ssf, validate_gwas_ssf, write_gwas_ssf
from plait.io.gwas_ssf_metadata import metadata_path, read_gwas_ssf_metadata
from plait.io.metadata_yaml import read_yaml, write_yaml

GIVEN = {
    "samples": [{"sample_size": 90, "sample_ancestry_category": ["European", "other: mixed"]}],
    "genotyping_technology": "Genome-wide genotyping array",
}


def table(rows=3, **columns):
    frame = {
        "chrom": ["1", "2", "X", "MT"][:rows],
        "pos": [5, 6, 7, 8][:rows],
        "ea": ["A", "C", "AT", "G"][:rows],
        "oa": ["G", "T", "A", "C"][:rows],
        "beta": [0.1, -0.2, 0.3, 0.5][:rows],
        "se": [0.05, 0.1, 0.07, 0.1][:rows],
        "eaf": [0.1, np.nan, 0.3, 0.5][:rows],
    }
    made = pl.DataFrame({**frame, **columns})
    return SummaryStatistics.from_frame(made, trait="height", build="GRCh38")


def assert_same(a, b):
    texts = ["chrom", "pos", "ea", "oa", "id", "rsid", "trait"]
    assert a.frame.select(texts).equals(b.frame.select(texts))
    for name in FLOATS:
        np.testing.assert_allclose(b.column(name), a.column(name), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    made = table(4, n=[90.0, 90.0, 80.0, 90.0], info=[1.0, 0.9, np.nan, 0.5],
                 rsid=["rs1", None, "rs3", "rs4"],
                 id=["1_5_G_A", None, "23_7_A_AT", None])  # fmt: skip
    write_gwas_ssf(made, path, GIVEN)
    back = read_gwas_ssf(path)
    assert_same(made, back)
    assert back.build == "GRCh38"
    text = path.read_bytes()
    raw = gzip.decompress(text) if suffix == ".tsv.gz" else text
    lines = raw.decode().splitlines()
    assert lines[0].split("\t") == [
        "chromosome", "base_pair_location", "effect_allele", "other_allele", "beta",
        "standard_error", "effect_allele_frequency", "p_value", "variant_id", "rsid", "info", "n",
    ]  # fmt: skip
    assert [line.split("\t")[0] for line in lines[1:]] == ["1", "2", "23", "25"]
    assert lines[2].split("\t")[6] == "#NA"
    described = read_gwas_ssf_metadata(path)
    assert described["data_file_md5sum"] == hashlib.md5(text).hexdigest()
    assert described["is_sorted"] is True and described["trait_description"] == ["height"]
    assert described["samples"][0]["sample_ancestry_category"] == ["European", "other: mixed"]
    findings = validate_gwas_ssf(path)
    assert findings.valid and len(findings.warnings) == 3
    assert findings.warnings[-1].endswith("effect_allele_frequency is missing in 1 rows")


def test_metadata_are_what_another_reader_reads(tmp_path):
    yaml = pytest.importorskip("yaml")
    write_gwas_ssf(
        table(), tmp_path / "x.tsv", {**GIVEN, "author_notes": 'a "b": # c', "sex": "NR"}
    )
    text = metadata_path(tmp_path / "x.tsv").read_text()
    theirs = yaml.load(text, yaml.BaseLoader)
    ours = read_gwas_ssf_metadata(tmp_path / "x.tsv")
    assert theirs["samples"] == ours["samples"] and theirs["author_notes"] == 'a "b": # c'
    assert theirs.keys() == ours.keys()


def test_p_beyond_a_double(tmp_path):
    made = table(2, p=["1.2e-412", "0.05"])
    write_gwas_ssf(made, tmp_path / "x.tsv", GIVEN)
    assert "neg_log_10_p_value" in (tmp_path / "x.tsv").read_text()
    np.testing.assert_array_equal(
        read_gwas_ssf(tmp_path / "x.tsv").column("log10p"), made.column("log10p")
    )
    assert validate_gwas_ssf(tmp_path / "x.tsv").valid
    text = (tmp_path / "x.tsv").read_text().replace("neg_log_10_p_value", "p_value")
    text = text.replace("411.9208187539524", "1.2e-412").replace("1.3010299956639813", "0.05")
    (tmp_path / "x.tsv").write_text(text)
    assert [e for e in validate_gwas_ssf(tmp_path / "x.tsv").errors if "p_value" in e] == []
    np.testing.assert_allclose(
        read_gwas_ssf(tmp_path / "x.tsv").column("log10p"), made.column("log10p"), rtol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 22),
            st.integers(1, 10**8),
            st.floats(-1e3, 1e3),
            st.floats(1e-6, 1e3),
            st.one_of(st.just(float("nan")), st.floats(0, 1)),
            st.integers(1, 10**6),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["auto", "neg_log_10_p_value"]),
)
def test_write_then_read_changes_nothing(tmp_path_factory, rows, p):
    chrom, pos, beta, se, eaf, n = zip(*rows, strict=True)
    frame = pl.DataFrame(
        {
            "chrom": [str(c) for c in chrom],
            "pos": pos,
            "ea": ["A"] * len(rows),
            "oa": ["G"] * len(rows),
            "beta": beta,
            "se": se,
            "eaf": eaf,
            "n": [float(v) for v in n],
        }
    )
    made = SummaryStatistics.from_frame(frame, trait="t", build="hg19")
    path = tmp_path_factory.mktemp("ssf") / "x.tsv"
    write_gwas_ssf(made, path, GIVEN, p=p)
    assert_same(made, read_gwas_ssf(path))


def test_rows_that_could_not_be_harmonised_are_left_out(tmp_path, caplog):
    path = tmp_path / "x.tsv"
    write_gwas_ssf(table(4), path, GIVEN, hm_code=[10, 5, 11, 13])
    assert validate_gwas_ssf(path).valid and len(read_gwas_ssf(path)) == 4
    text = path.read_text()
    for code in (9, 14, 18):
        path.write_text(text.replace("\t5\n", f"\t{code}\n"))
        assert read_gwas_ssf(path).frame["chrom"].to_list() == ["1", "X", "MT"]
    assert "1 rows that could not be harmonised" in caplog.text
    path.write_text(text.replace("\t5\n", "\t19\n"))
    assert "hm_code is not a code from 1 to 18" in " ".join(validate_gwas_ssf(path).errors)


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "x.tsv"
    with pytest.raises(InputError, match=r"metadata of x.tsv: missing samples"):
        write_gwas_ssf(table(), path)
    assert not path.exists() and not metadata_path(path).exists()
    with pytest.raises(InputError, match=r"NAME\.tsv"):
        write_gwas_ssf(table(), tmp_path / "x.txt", GIVEN)
    with pytest.raises(OptionError, match="p is"):
        write_gwas_ssf(table(), path, GIVEN, p="log")
    with pytest.raises(InputError, match="chromosomes 1 to 22"):
        write_gwas_ssf(table(chrom=["1", "2", "3H"]), path, GIVEN)
    with pytest.raises(InputError, match=r"not \['25'\]"):
        write_gwas_ssf(table(chrom=["1", "2", "25"]), path, GIVEN)
    with pytest.raises(InputError, match=r"letters A, C, G and T, not those of 1 rows \(2:6:"):
        write_gwas_ssf(table(oa=["G", "<DEL>", "A"]), path, GIVEN)
    with pytest.raises(InputError, match="needs oa"):
        write_gwas_ssf(table(oa=["G", None, "A"]), path, GIVEN)
    only_z = SummaryStatistics.from_frame(
        pl.DataFrame({"chrom": ["1"], "pos": [1], "ea": ["A"], "oa": ["G"], "z": [2.0]})
    )
    with pytest.raises(InputError, match="z only"):
        write_gwas_ssf(only_z, path, GIVEN)
    write_gwas_ssf(table(), path, GIVEN)
    with pytest.raises(OutputError, match="exists"):
        write_gwas_ssf(table(), path, GIVEN)


def test_files_that_break_the_standard(tmp_path):
    path = tmp_path / "x.tsv"
    write_gwas_ssf(table(), path, GIVEN)
    text = path.read_text()

    def errors(old, new):
        path.write_text(text.replace(old, new))
        return " | ".join(validate_gwas_ssf(path).errors)

    assert "data_file_md5sum" in errors("0.1", "0.11")
    assert "chromosome is not 1 to 25 in 1 rows (first: row 3, 'X')" in errors("\n23\t", "\nX\t")
    assert "column 1 is chrom" in errors("chromosome\t", "chrom\t")
    assert "column 5 is b," in errors("beta", "b")
    assert "effect_allele is not ACGT" in errors("\tAT\t", "\tR\t")
    assert "effect_allele_frequency is not a number from 0 to 1" in errors(
        "0.3\t0.07\t0.3", "0.3\t0.07\t1.3"
    )
    assert "standard_error is not a number in 1 rows (first: row 3, '')" in errors("0.07", "")
    assert "effect_allele_frequency is not a number" in errors("#NA", ".")
    assert "is_sorted is true, and the rows are not in order" in errors("2\t6", "24\t6")
    path.write_text(text)
    renamed = tmp_path / "y.tsv"
    renamed.write_text(text)
    metadata_path(renamed).write_text(metadata_path(path).read_text())
    assert "data_file_name is x.tsv" in " ".join(validate_gwas_ssf(renamed).warnings)
    zero = text.splitlines()
    zero[1] = "\t".join([*zero[1].split("\t")[:7], "0"])
    path.write_text("\n".join(zero) + "\n")
    assert any("0 only with analysis_software" in e for e in validate_gwas_ssf(path).errors)
    metadata_path(path).write_text(metadata_path(path).read_text() + "analysis_software: PLINK\n")
    assert not any("p_value" in e for e in validate_gwas_ssf(path).errors)
    listed = metadata_path(path).read_text().replace('      - "other: mixed"\n', "")
    plain = re.sub(r":\n *- (?!sample_size)", ": ", listed)
    metadata_path(path).write_text(plain)
    found = " | ".join(validate_gwas_ssf(path).errors)
    for key in ("trait_description", "genotyping_technology", "sample 1: sample_ancestry_category"):
        assert f"metadata: {key} is a list, not '" in found
    metadata_path(path).unlink()
    assert any("needs its metadata" in e for e in validate_gwas_ssf(path).errors)
    with pytest.raises(MissingSidecarError):
        read_gwas_ssf_metadata(path)
    assert read_gwas_ssf(path).build is None
    assert "no such file" in validate_gwas_ssf(tmp_path / "absent.tsv").errors[0]


def test_yaml_of_the_catalogue():
    text = """# Study meta-data
date_metadata_last_modified: 2023-02-09

samples:
  - sample_size: 12345   # all
    sample_ancestry_category:
      - European
    case_control_study: false
- nonsense: no
"""
    with pytest.raises(FileFormatError, match="line 9"):
        read_yaml(text, "x")
    values = read_yaml(text.replace("- nonsense: no\n", ""), "x")
    assert values == {
        "date_metadata_last_modified": "2023-02-09",
        "samples": [
            {
                "sample_size": "12345",
                "sample_ancestry_category": ["European"],
                "case_control_study": False,
            }
        ],
    }
    long = "trait_description:\n- 'it''s'\n- a long\n  text\nempty:\nflow: [a, 'b']\n"
    long += "notes: goes\n  on\n"
    assert read_yaml(long, "x") == {
        "trait_description": ["it's", "a long text"],
        "empty": None,
        "flow": ["a", "b"],
        "notes": "goes on",
    }
    assert read_yaml("", "x") == {}
    for bad in (
        "a: |\n  b\n",
        "a: &x 1\n",
        "just text\n",
        "a: 'b\n",
        'a: "b\n',
        "a: [b\n",
        "\ta: b\n",
    ):
        with pytest.raises(FileFormatError, match="x, line 1"):
            read_yaml(bad, "x")


LETTERS = st.characters(codec="utf-8")


@settings(max_examples=100, deadline=None)
@example(["0\xa0", "\u2028"], "a\x85b\r\n", True)
@given(
    st.lists(st.text(LETTERS, max_size=12), max_size=3),
    st.text(LETTERS, max_size=30),
    st.booleans(),
)
def test_yaml_round_trip(items, text, flag):
    values = {"list": items, "text": text, "flag": flag, "deep": [{"a": text, "b": items}]}
    written = write_yaml(values)
    assert read_yaml(written, "x") == values
    yaml = pytest.importorskip("yaml")
    loaded = yaml.load(written, yaml.BaseLoader)
    if all(ord(letter) < 0x10000 for letter in "".join([text, *items])):  # JSON writes pairs
        assert loaded["text"] == text
