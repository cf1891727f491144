"""The genome build of summary statistics: how it is called, and that files keep it."""

import json

import polars as pl
import pytest

from plait.cli.main import main
from plait.data.summary_statistics import SummaryStatistics, standard_build
from plait.errors import FileFormatError, OptionError, OutputError
from plait.io import read_summary_statistics, write_gwas_ssf, write_summary_statistics
from plait.io.gwas_ssf_metadata import metadata_path, metadata_problems, read_gwas_ssf_metadata

ABOUT = {
    "trait_description": "height",
    "samples": {"sample_ancestry_category": "European"},
    "genotyping_technology": "Genome-wide genotyping array",
}
ASSEMBLIES = [
    "GRCm39", "GRCm38.p6", "mm10", "B73", "B73_RefGen_v4", "IWGSC RefSeq v1.0", "TAIR10", "hs1",
    "T2T-CHM13v2.0", "ARS-UCD1.2", "Sscrofa11.1", "build 5",
]  # fmt: skip


def table(build=None):
    frame = {"chrom": ["1", "2"], "pos": [5, 7], "ea": ["A", "G"], "oa": ["C", "T"]}
    frame |= {"eaf": [0.2, 0.4], "beta": [0.5, -0.25], "se": [0.125, 0.25], "n": [100.0, 100.0]}
    return SummaryStatistics.from_frame(pl.DataFrame(frame), build=build)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((name, "GRCh37") for name in ("hg19", "HG19", "b37", "37", "19", "GRCh37.p13")),
        *((name, "GRCh37") for name in ("build 37", "human_g1k_v37", " grch37 ", "hg_19")),
        *((name, "GRCh38") for name in ("hg38", "B38", 38, "GRCh38", "GRCh38.p14", "Build38")),
        *((name, "NCBI36") for name in ("hg18", "b36", "NCBI36", "NCBI 36")),
        *((name, None) for name in (None, "", "NR", "unknown", "NA")),
    ],
)
def test_names_of_human_builds(given, name):
    assert standard_build(given) == name


@pytest.mark.parametrize("name", ASSEMBLIES)
def test_other_assemblies_are_called_as_they_are(name):
    assert standard_build(name) == name
    assert table(name).build == name


@pytest.mark.parametrize("name", ["hg99", "hg83", "GRCh39", "GRCh37/hg19", "b39", "NCBI 99", "99"])
def test_builds_that_there_are_not(name, tmp_path, capsys, monkeypatch):
    said = f"build is '{name}', and the human genome has no such build. Expected GRCh38 (hg38, b38)"
    with pytest.raises(OptionError) as caught:
        table(name)
    assert said in str(caught.value)
    monkeypatch.chdir(tmp_path)
    write_summary_statistics(table(), "a.tsv")
    with pytest.raises(OptionError, match="has no such build"):
        read_summary_statistics("a.tsv", build=name)
    for words in (
        "check a.tsv",
        "convert a.tsv --to tsv --out b.tsv",
        "harmonise a.tsv --reference a.tsv --out b.tsv",
        "combine a=a.tsv b=a.tsv --out b.zarr",
    ):
        assert main(["sumstats", *words.split(), "--build", name]) == 2
        assert f"--{said}" in capsys.readouterr().err
    assert [place.name for place in tmp_path.iterdir()] == ["a.tsv"]
    assert metadata_problems({"genome_assembly": name})[1].startswith(
        f"genome_assembly is '{name}'"
    )


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.parquet"])
@pytest.mark.parametrize("build", ["GRCh38", "mm10", None])
def test_files_keep_it(tmp_path, name, build):
    place = tmp_path / name
    write_summary_statistics(table(build), place)
    again = read_summary_statistics(place)
    assert again.build == build and again.frame.equals(table().frame)
    assert read_summary_statistics(place, build="hg19").build == "GRCh37"
    # What is written over it has its own, or none.
    for other in ("GRCh37", None):
        with pytest.raises(OutputError, match="exists"):
            write_summary_statistics(table(other), place)
        write_summary_statistics(table(other), place, overwrite=True)
        assert read_summary_statistics(place).build == other
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_metadata_of_a_table_that_is_gone_are_not_taken(tmp_path):
    place = tmp_path / "a.tsv"
    write_summary_statistics(table("GRCh38"), place)
    place.unlink()
    with pytest.raises(OutputError, match=r"a\.tsv-meta\.yaml exists"):
        write_summary_statistics(table(), place)
    assert not place.exists()


@pytest.mark.parametrize("name", ["a.tsv", "a.parquet"])
def test_builds_that_files_state_and_there_are_not(tmp_path, name, capsys):
    place = tmp_path / name
    if name == "a.parquet":
        table().frame.write_parquet(place, metadata={"genome_assembly": "hg99"})
        where = str(place)
    else:
        write_summary_statistics(table("GRCh38"), place)
        where = str(metadata_path(place))
        metadata_path(place).write_text("genome_assembly: hg99\n")
    with pytest.raises(FileFormatError) as caught:
        read_summary_statistics(place)
    assert str(caught.value).startswith(f"{where}: genome_assembly is 'hg99', and the human")
    assert main(["sumstats", "check", str(place)]) == 2
    assert "Correct it there, or say which it is (--build NAME)." in capsys.readouterr().err
    assert main(["gwas", "region", str(place), "--out", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.rstrip().endswith("Correct it there.")


def test_gwas_ssf_states_it_by_its_one_name(tmp_path):
    write_gwas_ssf(table(), tmp_path / "a.tsv", ABOUT | {"genome_assembly": "hg19"})
    assert read_gwas_ssf_metadata(tmp_path / "a.tsv")["genome_assembly"] == "GRCh37"
    write_gwas_ssf(table(), tmp_path / "b.tsv", ABOUT | {"genome_assembly": "NR"})
    assert read_gwas_ssf_metadata(tmp_path / "b.tsv")["genome_assembly"] == "NR"
    assert read_summary_statistics(tmp_path / "b.tsv").build is None


def test_commands_hand_it_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_summary_statistics(table(), "a.tsv")
    convert = ["sumstats", "convert"]
    assert main([*convert, "a.tsv", "--build", "hg38", "--to", "tsv", "--out", "b.tsv.gz"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("· b.tsv.gz-meta.yaml")
    assert json.loads((tmp_path / "b.tsv.gz.run.json").read_text())["build"] == "GRCh38"
    assert main([*convert, "b.tsv.gz", "--to", "parquet", "--out", "c.parquet"]) == 0
    harmonise = ["sumstats", "harmonise", "c.parquet", "--reference", "a.tsv"]
    assert main([*harmonise, "--out", "d.tsv"]) == 0
    (tmp_path / "about.yaml").write_text(
        "trait_description: height\nsamples:\n  - sample_ancestry_category: European\n"
        "genotyping_technology: array\n"
    )
    words = ["--to", "ssf", "--metadata", "about.yaml", "--out", "e.tsv"]
    assert main([*convert, "d.tsv", *words]) == 0
    for name in ("b.tsv.gz", "c.parquet", "d.tsv", "e.tsv"):
        assert read_summary_statistics(name).build == "GRCh38"
        capsys.readouterr()
        assert main(["sumstats", "check", name]) == 0
        assert "genome build: GRCh38" in capsys.readouterr().out
    write_summary_statistics(table("hg19"), "old.tsv")
    assert main(["sumstats", "combine", "x=old.tsv", "y=c.parquet", "--out", "f.zarr"]) == 2
    assert "is on GRCh38 and the table of 'x' on GRCh37. Lift" in capsys.readouterr().err
