"""What a scan writes is read again by the commands on summary statistics."""

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.data.variants import VariantTable
from plait.gwas import AssociationResult
from plait.io import (
    read_effects,
    read_gwas_ssf,
    read_summary_contexts,
    read_summary_statistics,
    validate_gwas_ssf,
)
from plait.io.plink import write_bed

N, M = 120, 400
TRAITS = ("height", "LDL/HDL ratio", "b.m.i")
METADATA = """genome_assembly: GRCh38
genotyping_technology:
  - Genome-wide genotyping array
samples:
  - sample_ancestry_category:
      - European
"""
KEY = ("chrom", "pos", "oa", "ea")
STATISTICS = ("beta", "se", "log10p", "n")


def write_study(folder, chromosomes=("1", "2", "X")):
    """Common A/T variants, whose strand no frequency tells, rare ones, and missing traits."""
    random = np.random.default_rng(3)
    frequencies = random.choice([0.03, 0.25, 0.5], (M, 1))
    calls = random.binomial(2, frequencies, (M, N)).astype(np.int8)
    places = np.sort(random.choice(chromosomes, M))
    letters = np.array(["AT", "CG", "AC", "GT"])[random.integers(0, 4, M)]
    table = VariantTable.of(
        places,
        np.arange(1, M + 1) * 1000,
        [pair[0] for pair in letters],
        [pair[1] for pair in letters],
        [f"rs{j}" for j in range(M)],
    )
    samples = [f"s{i}" for i in range(N)]
    write_bed(folder / "g.bed", iter([calls]), table, samples, overwrite=True)
    values = random.normal(size=(N, 3)) + 0.4 * calls[7][:, None]
    values[5:60, 1] = np.nan  # so that rare variants are tested for some traits only
    columns = dict(zip(TRAITS, values.T, strict=True))
    pl.DataFrame({"IID": samples, **columns}).write_csv(folder / "y.csv", null_value="NA")
    (folder / "about.yaml").write_text(METADATA)


def scanned(*more):
    line = ["gwas", "scan", "--geno", "g.bed", "--pheno", "y.csv", "--out", "out", "--min-mac", "5"]
    return main([*line, "--quiet", *more])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_every_trait_is_a_context(folder, form):
    assert scanned("--format", form) == 0
    path = folder / f"out/associations.{form}{'.gz' if form == 'tsv' else ''}"
    result = AssociationResult.load("out/associations.zarr")
    found = read_summary_contexts(path)
    assert tuple(found) == TRAITS
    for number, table in enumerate(found.values()):
        tested = np.isfinite(result.se[:, number])
        assert table.frame["id"].to_list() == result.id[tested].tolist()
        for name in STATISTICS:
            np.testing.assert_array_equal(table.column(name), getattr(result, name)[tested, number])
        np.testing.assert_array_equal(table.column("eaf"), result.frequency[tested])
        assert table.frame["ea"].to_list() == result.ea[tested].tolist()
        assert table.frame["oa"].to_list() == result.oa[tested].tolist()
        assert table.counts == ({} if tested.all() else {"no_estimate": M - int(tested.sum())})
    assert "no_estimate" in found["LDL/HDL ratio"].counts
    # A scan of one trait is a table of one context, which need not be named.
    assert scanned("--format", form, "--overwrite", "--traits", "b.m.i") == 0
    alone = read_summary_statistics(path)
    assert alone.frame["trait"].unique().to_list() == ["b.m.i"]
    result = AssociationResult.load("out/associations.zarr")
    np.testing.assert_array_equal(alone.column("beta"), result.beta[np.isfinite(result.se)])
    assert main(["sumstats", "check", str(path)]) == 0


@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_combined_they_are_the_effects_of_the_scan(folder, form, capsys):
    assert scanned("--format", form) == 0
    table = f"out/associations.{form}{'.gz' if form == 'tsv' else ''}"
    assert main(["sumstats", "combine", table, "--out", "combined.zarr"]) == 0
    assert "rows with no estimate: not tested" in capsys.readouterr().out
    combined, effects = read_effects("combined.zarr"), read_effects("out/effects.zarr")
    assert combined.contexts == effects.contexts == TRAITS
    # Strands are not in question within one file: no A/T variant is lost. The names are the scan's.
    rows = {name: row for row, name in enumerate(combined.effects.tolist())}
    assert sorted(rows) == sorted(effects.effects.tolist())
    order = [rows[name] for name in effects.effects.tolist()]
    result = AssociationResult.load("out/associations.zarr")
    tested = np.flatnonzero(np.isfinite(result.se).any(axis=1))
    where = pl.read_csv("combined.zarr.variants.tsv", separator="\t", infer_schema=False)
    assert where["name"].to_list() == combined.effects.tolist()
    scan = result.to_table().select("id", *KEY).cast(pl.String)
    assert where.select("id", *KEY).sort("id").equals(scan[tested].sort("id"))
    known = np.isfinite(effects.shat)
    np.testing.assert_array_equal(np.isfinite(combined.shat[order]), known)
    assert 0 < known.sum() < known.size
    np.testing.assert_array_equal(combined.bhat[order][known], effects.bhat[known])
    # Tables hold the errors of the tests; a scan's own effects are widened for normal ones.
    np.testing.assert_array_equal(combined.shat[order][known], result.se[tested][known])
    assert (effects.shat[known] >= combined.shat[order][known]).all()


def test_a_trait_of_a_scan_beside_another_table(folder, capsys):
    assert scanned() == 0
    table = "out/associations.parquet"
    one = ["sumstats", "convert", table, "--context", "b.m.i", "--to", "tsv", "--out", "bmi.tsv"]
    assert main(one) == 0
    both = ["sumstats", "combine", f"height={table}", "other=bmi.tsv", "--out", "e.zarr"]
    assert main([*both, "--palindromic", "keep_forward"]) == 0
    effects = read_effects("e.zarr")
    assert effects.contexts == ("height", "other")
    result = AssociationResult.load("out/associations.zarr")
    measured = np.isfinite(effects.shat)
    for column, trait in enumerate((0, 2)):
        estimates = result.beta[np.isfinite(result.se[:, trait]), trait]
        assert set(effects.bhat[measured[:, column], column]) == set(estimates)
    capsys.readouterr()
    assert main(["sumstats", "check", table]) == 2
    assert "height, LDL/HDL ratio, b.m.i. Say which: --context" in capsys.readouterr().err


def test_scanned_converted_and_checked(folder, capsys):
    assert scanned() == 0
    command = ["sumstats", "convert", "out/associations.parquet", "--context", TRAITS[1]]
    command += ["--to", "ssf", "--metadata", "about.yaml", "--out", "ratio.tsv.gz"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["sumstats", "check", "ratio.tsv.gz"]) == 0
    said = capsys.readouterr().out
    assert "keeps to the standard" in said and f"trait '{TRAITS[1]}', GRCh38" in said
    assert validate_gwas_ssf("ratio.tsv.gz").valid
    back = read_gwas_ssf("ratio.tsv.gz")
    table = read_summary_statistics("out/associations.parquet", context=TRAITS[1])
    for name in ("beta", "se", "eaf", "n"):
        np.testing.assert_array_equal(back.column(name), table.column(name))
    np.testing.assert_allclose(back.column("log10p"), table.column("log10p"), rtol=1e-12)
    assert back.keys.equals(table.keys)
    assert back.frame["rsid"].equals(table.frame["id"].alias("rsid"))


def test_gwas_ssf_of_a_scan(folder, capsys):
    assert scanned("--format", "tsv") == 0
    about = METADATA + "traits:\n  b.m.i:\n    trait_description: body mass index\n"
    (folder / "about.yaml").write_text(about)
    assert scanned("--format", "ssf", "--metadata", "about.yaml", "--overwrite") == 0
    out = folder / "out/associations.ssf"
    described = {"height": "height", "LDL_HDL_ratio": TRAITS[1], "b.m.i": "body mass index"}
    for name, description in described.items():
        assert validate_gwas_ssf(out / f"{name}.tsv.gz").valid
        assert read_gwas_ssf(out / f"{name}.tsv.gz").frame["trait"][0] == description
    assert len(list(out.iterdir())) == 6
    assert not (folder / "out/associations.tsv.gz").exists()
    more = ["--traits", "b.m.i", "--overwrite"]
    assert scanned("--format", "ssf", "--metadata", "about.yaml", *more) == 0
    assert [p.name for p in sorted(out.iterdir())] == ["b.m.i.tsv.gz", "b.m.i.tsv.gz-meta.yaml"]
    # The same metadata serve the table that is converted.
    assert scanned("--overwrite") == 0
    assert not out.exists()
    command = ["sumstats", "convert", "out/associations.parquet", "--context", "b.m.i"]
    assert main([*command, "--to", "ssf", "--metadata", "about.yaml", "--out", "b.tsv"]) == 0
    assert read_gwas_ssf("b.tsv").frame["trait"][0] == "body mass index"
    # Combined with the table that it was, it keeps its variants, also on X.
    both = ["sumstats", "combine", "b.m.i=out/associations.parquet", "ssf=b.tsv", "--out", "b.zarr"]
    assert main([*both, "--palindromic", "keep_forward"]) == 0
    effects = read_effects("b.zarr")
    np.testing.assert_array_equal(effects.bhat[:, 0], effects.bhat[:, 1])


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (METADATA.replace("GRCh38", ""), "about.yaml: missing genome_assembly"),
        (METADATA + "trait_description: all\n", "one trait_description for 3 traits"),
        (METADATA + "traits:\n  bmi:\n    sex: F\n", "'bmi' below traits, and there is no such"),
        ("genome_assembly: |\n", "about.yaml, line 1: '|' begins a part of YAML"),
        (None, "about.yaml: there is no such file"),
    ],
)
def test_metadata_are_checked_before_the_scan(folder, metadata, text, capsys):
    place = folder / "about.yaml"
    place.unlink() if metadata is None else place.write_text(metadata)
    assert scanned("--format", "ssf", "--metadata", "about.yaml") == 2
    said = capsys.readouterr().err
    assert text in said and len(said.splitlines()) == 1
    assert not (folder / "out").exists()


def test_traits_of_one_file_and_chromosomes_of_none(folder, capsys):
    table = pl.read_csv("y.csv", null_values="NA", infer_schema_length=None)
    table.rename({"LDL/HDL ratio": "HEIGHT"}).write_csv("y.csv", null_value="NA")
    assert scanned("--format", "ssf", "--metadata", "about.yaml") == 2
    assert "'height' and 'HEIGHT' would be written to the same file" in capsys.readouterr().err
    write_study(folder, ("1A", "3H"))
    assert scanned("--format", "ssf", "--metadata", "about.yaml") == 2
    assert "none of the 400 variants can be written" in capsys.readouterr().err
    assert not (folder / "out").exists()
    write_study(folder, ("1", "3H"))
    assert scanned("--format", "ssf", "--metadata", "about.yaml") == 0
    assert "GWAS-SSF cannot hold" in capsys.readouterr().err
    assert read_gwas_ssf("out/associations.ssf/height.tsv.gz").frame["chrom"].unique()[0] == "1"
