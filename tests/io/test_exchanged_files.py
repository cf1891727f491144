"""Files in the place of others: errors say what they are."""

import gzip
import re

import numpy as np
import pytest

from plait.cli.main import main
from plait.data.variants import VariantTable
from plait.errors import FileFormatError
from plait.io import (
    open_genotypes,
    read_covariates,
    read_phenotypes,
    read_summary_contexts,
    read_summary_statistics,
)
from plait.io.exchanged_files import genotype_format
from plait.io.plink import write_bed

VCF = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n"
STARTS = {
    "a.bed": ("bed", b"\x6c\x1b\x01\xfc\xff\n\x88", "holds PLINK's genotypes"),
    "a.txt": ("bed", b"\x6c\x1b\x00\xfc", "holds PLINK's genotypes"),
    "a.pgen": ("pgen", b"\x6c\x1b\x10\0\0", "holds PLINK 2's genotypes"),
    "a.vcf": ("vcf", VCF.encode(), "is a VCF"),
    "a.csv.gz": ("vcf", gzip.compress(VCF.encode()), "is a VCF"),
    "a.bcf": ("vcf", gzip.compress(b"BCF\2\2"), "is a VCF"),
    "a.bgen": ("bgen", b"\x14" + b"\0" * 15 + b"bgen", r"holds genotypes \(BGEN\)"),
    "a.trees": ("trees", b"\x89KAS\r\n\x1a\n..", "is a tree sequence"),
    "a.bim": (None, b"1\trs1\t0\t5\tA\tC\n", "lists the variants of genotypes"),
    "a.pvar.zst": (None, b"\x28\xb5\x2f\xfd", "lists the variants of genotypes"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Genotypes of 30 samples and their traits, all positive, of both signs, and in words."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    names = [f"s{i}" for i in range(30)]
    variants = VariantTable.of(["1"] * 4, range(1, 5), ["A"] * 4, ["C"] * 4, list("abcd"))
    write_bed("g.bed", [random.integers(0, 3, (4, 30)).astype(np.int8)], variants, names)
    for name, values in (
        ("positive.csv", 20 + random.random(30)),
        ("signed.csv", random.normal(size=30)),
        ("words.csv", ["low", "high"] * 15),
    ):
        rows = [f"{s},{value}" for s, value in zip(names, values, strict=True)]
        (tmp_path / name).write_text("\n".join(["IID,y", *rows]))
    return tmp_path


@pytest.mark.parametrize("name", STARTS)
def test_what_a_file_is(tmp_path, name):
    place = tmp_path / name
    found, start, said = STARTS[name]
    place.write_bytes(start)
    assert genotype_format(place) == found
    expected = f"{name} {said}; expected a table of traits or covariates, .* goes where genotypes"
    for read in (read_phenotypes, read_covariates):
        with pytest.raises(FileFormatError, match=expected):
            read(place)
    if found == "vcf":  # it may be a GWAS-VCF
        return
    expected = f"{name} {said}; expected a table of summary statistics"
    for read in (read_summary_statistics, read_summary_contexts):
        with pytest.raises(FileFormatError, match=expected):
            read(place)


def test_tables_and_folders(folder):
    for name in ("signed.csv", "words.csv"):
        assert genotype_format(folder / name) is None
        with pytest.raises(
            FileFormatError, match="traits or covariates, it was given in the place"
        ):
            open_genotypes(name)
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"IID,y\n")[:8])
    assert genotype_format(folder / "cut.csv.gz") is None
    with pytest.raises(FileFormatError, match=r"a folder; expected a table of traits or covariate"):
        read_phenotypes(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("scan --geno signed.csv --pheno g.bed", "signed.csv: marker 'y' .* in the place of geno"),
        ("scan --geno words.csv --pheno g.bed", "words.csv: marker 'y' .* in the place of geno"),
        ("scan --geno positive.csv --pheno g.bed", "g.bed holds .*: give this one as --geno"),
        ("scan --geno g.bed --pheno g.bed", "g.bed holds .*: give this one as --geno"),
        ("scan --geno g.bed --pheno g.bim", "g.bim lists .*: give this one as --geno"),
        ("scan --geno g.bed --pheno signed.csv --covar g.bed", "g.bed holds .* this one as --geno"),
        ("kinship --geno signed.csv", "signed.csv: marker 'y' .* in the place of genotypes"),
    ],
)
def test_commands_on_genotypes(folder, capsys, words, said):
    assert main(["gwas", *words.split(), "--out", "out"]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        "gwas region g.bed --geno g.bed --out a.png",
        "sumstats check g.bed",
        "sumstats check g.bim",
        "sumstats check g.bed --columns ea=a,z=b",
        "sumstats combine a=g.bim b=g.bim --out a.zarr",
        "sumstats harmonise g.bim --reference g.bim --out a.tsv",
    ],
)
def test_commands_on_summary_statistics(folder, capsys, words):
    assert main(words.split()) == 2
    assert (
        "seems that files are exchanged, or that the genotypes are not" in capsys.readouterr().err
    )
