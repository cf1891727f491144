"""A GWAS-SSF file for each trait of a scan."""

import logging

import numpy as np
import pytest

from plait.data.variants import VariantTable
from plait.errors import InputError, LabelError, OutputError
from plait.gwas import AssociationResult
from plait.gwas.association_tables import check_ssf, ssf_names, write_ssf, write_tables
from plait.io import read_gwas_ssf, validate_gwas_ssf
from plait.io.gwas_ssf_metadata import read_gwas_ssf_metadata

METADATA = {
    "genome_assembly": "GRCh38",
    "genotyping_technology": ["Array"],
    "samples": [{"sample_ancestry_category": ["European"]}],
}


def result(traits=("height", "LDL/HDL ratio"), **columns):
    m, t = 6, len(traits)
    random = np.random.default_rng(2)
    se = random.uniform(0.1, 0.2, (m, t))
    se[1, 0] = np.nan
    beta = random.normal(size=(m, t))
    return AssociationResult(
        **{
            "beta": beta,
            "se": se,
            "log10p": -((beta / se) ** 2),
            "n": np.full((m, t), 90) - 10 * np.arange(t),
            "frequency": np.full(m, 0.25),
            "chrom": np.array(["chr1", "1", "02", "X", "26", "GL7"]),
            "pos": np.arange(1, m + 1),
            "id": np.array([f"rs{i}" for i in range(m)]),
            "oa": np.array(["A", "C", "A", "G", "C", "C"]),
            "ea": np.array(["G", "T", "ATT", "A", "T", "T"]),
            "traits": traits,
            "V0": np.eye(t),
        }
        | columns
    )


def test_a_file_for_each_trait(tmp_path, caplog):
    made = result()
    given = METADATA | {"traits": {"height": {"trait_description": "standing height"}}}
    with caplog.at_level(logging.WARNING, "plait.gwas"):
        places = made.write_ssf(tmp_path / "ssf", given)
    assert [place.name for place in places] == ["height.tsv.gz", "LDL_HDL_ratio.tsv.gz"]
    assert "cannot hold 1 rows (GL7:6:C:T)" in caplog.text
    tested = [0, 2, 3, 4], [0, 1, 2, 3, 4]
    described = ["standing height"], ["LDL/HDL ratio"]
    for number, place in enumerate(places):
        assert validate_gwas_ssf(place).valid
        back = read_gwas_ssf(place)
        np.testing.assert_array_equal(back.column("beta"), made.beta[tested[number], number])
        np.testing.assert_array_equal(back.column("se"), made.se[tested[number], number])
        assert back.frame["rsid"].to_list() == made.id[tested[number]].tolist()
        about = read_gwas_ssf_metadata(place)
        assert about["trait_description"] == described[number]
        assert about["samples"][0]["sample_size"] == str(90 - 10 * number)
        assert about["data_file_name"] == place.name
    assert read_gwas_ssf(places[1]).frame["chrom"].to_list() == ["1", "1", "2", "X", "MT"]
    with pytest.raises(OutputError, match="exists"):
        write_ssf(made, tmp_path / "ssf", given)


def test_cases_and_controls_of_a_logistic_model(tmp_path):
    made = result(("t2d",), n_cases=np.array([40]))
    (place,) = write_ssf(made, tmp_path, METADATA)
    sample = read_gwas_ssf_metadata(place)["samples"][0]
    assert sample["case_control_study"] is True
    assert (sample["case_count"], sample["control_count"]) == ("40", "50")


def test_tables_of_other_traits_and_formats_are_removed(tmp_path):
    def files():
        return sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())

    assert write_tables(result(), tmp_path, "tsv") == ["associations.tsv.gz"]
    assert write_tables(result(), tmp_path, "parquet") == ["associations.parquet"]
    assert files() == ["associations.parquet"]
    written = write_tables(result(), tmp_path, "ssf", METADATA)
    assert written == ["associations.ssf/height.tsv.gz", "associations.ssf/LDL_HDL_ratio.tsv.gz"]
    assert files() == sorted([*written, *(f"{name}-meta.yaml" for name in written)])
    (tmp_path / "associations.ssf/mine.txt").write_text("kept")
    written = write_tables(result(("bmi",)), tmp_path, "ssf", METADATA)
    assert files() == sorted([*written, f"{written[0]}-meta.yaml", "associations.ssf/mine.txt"])
    write_tables(result(), tmp_path, "tsv")
    assert files() == ["associations.ssf/mine.txt", "associations.tsv.gz"]
    (tmp_path / "associations.ssf/mine.txt").unlink()
    write_tables(result(), tmp_path, "ssf", METADATA)
    write_tables(result(), tmp_path, "parquet")
    assert files() == ["associations.parquet"] and not (tmp_path / "associations.ssf").exists()


def test_files_of_others_are_never_removed(tmp_path):
    """A folder of somebody's GWAS-SSF takes the traits of a scan beside what is there."""
    write_ssf(result(), tmp_path, METADATA)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_ssf(result(("bmi",)), tmp_path, METADATA)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() - before.keys() == {"bmi.tsv.gz", "bmi.tsv.gz-meta.yaml"}
    assert before.items() <= after.items()


def test_names_of_files():
    long = "ü" * 300
    names = ssf_names(["a b/c", "../up", "b.m.i", ".hidden", "-q", "Größe (m)", "%", long])
    assert list(names.values())[:-1] == [
        "a_b_c.tsv.gz", "up.tsv.gz", "b.m.i.tsv.gz", "hidden.tsv.gz", "q.tsv.gz",
        "Größe_m.tsv.gz", "trait.tsv.gz",
    ]  # fmt: skip
    assert len(names[long].encode()) < 200
    for two in (["a/b", "a b"], ["HDL", "hdl"]):
        with pytest.raises(LabelError, match=f"{two[0]!r} and {two[1]!r} would be written to the"):
            ssf_names(two)


def test_what_is_refused_before_a_scan(tmp_path):
    check_ssf(("a", "b"), METADATA)
    with pytest.raises(LabelError, match="same file"):
        check_ssf(("a/b", "a b"), METADATA)
    with pytest.raises(InputError, match=r"m\.yaml: missing genome_assembly"):
        check_ssf(("a",), METADATA | {"genome_assembly": ""}, where="m.yaml")
    wheat = VariantTable.of(["0", "3H"], [1, 2], ["A", "C"], ["P", "T"])
    with pytest.raises(InputError, match=r"none of the 2 variants.*'0' with the alleles A and P"):
        check_ssf(("a",), METADATA, wheat)
    check_ssf(("a",), METADATA, VariantTable.of(["3H", "chrX"], [1, 2], ["A", "C"], ["P", "T"]))
    odd = result(chrom=np.array(["3H"] * 6))
    with pytest.raises(InputError, match="none of the variants that were tested for 'height'"):
        write_ssf(odd, tmp_path, METADATA)
