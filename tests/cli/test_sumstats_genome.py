"""Tables against a genome, filters of other tools, and effects made of z, as one types it."""

import gzip
import json

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.io import read_effects, read_gwas_ssf, read_summary_statistics, validate_gwas_ssf

N = 300
METADATA = """samples:
  - sample_size: 5000
    sample_ancestry_category:
      - European
genotyping_technology:
  - Genome-wide genotyping array
trait_description:
  - height
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two chromosomes of known letters, and a table half of whose rows are of the genome's."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(7)
    genome = {name: "".join(random.choice(list("ACGT"), 4000)) for name in ("1", "X")}
    genome["1"] = genome["1"][:2000] + "GATTTTTTC" + genome["1"][2009:]
    text = "".join(
        f">chr{name}\n" + "".join(bases[k : k + 60] + "\n" for k in range(0, 4000, 60))
        for name, bases in genome.items()
    )
    (tmp_path / "genome.fa").write_text(text)
    places = np.sort(random.choice(np.arange(1, 1900), N // 2, replace=False))
    chrom, pos = np.repeat(["1", "X"], N // 2), np.tile(places, 2)
    ref = np.array([genome[c][p - 1] for c, p in zip(chrom, pos, strict=True)])
    partner = dict(zip("ACGT", "CATG", strict=True))
    alt = np.array([partner[letter] for letter in ref])
    turned = np.arange(N) % 2 == 0
    frame = pl.DataFrame(
        {
            "CHR": [f"chr{c}" for c in chrom],
            "BP": pos,
            "SNP": [f"rs{k}" for k in range(N)],
            "EA": np.where(turned, ref, alt),
            "OA": np.where(turned, alt, ref),
            "EAF": random.uniform(0.05, 0.95, N),
            "BETA": random.normal(size=N),
            "SE": np.full(N, 0.5),
            "N": np.r_[np.full(N - 10, 5000), np.full(10, 100)],
            "INFO": np.r_[np.full(20, 0.5), np.full(N - 20, 1.0)],
        }
    )
    frame.write_csv("table.tsv", separator="\t")
    (tmp_path / "about.yaml").write_text(METADATA)
    return tmp_path


def harmonised(*words):
    return main(["sumstats", "harmonise", "table.tsv", *words])


def test_a_genome_as_reference(folder, capsys):
    assert harmonised("--reference", "genome.fa", "--out", "h.tsv") == 0
    said = capsys.readouterr().out
    assert "table.tsv: 300 rows; genome.fa: 2 sequences" in said
    assert "150 fit as they are" in said and "150 flipped" in said
    given, found = pl.read_csv("table.tsv", separator="\t"), read_summary_statistics("h.tsv")
    turned = pl.Series(np.arange(N) % 2 == 0)
    alt = given.select(pl.when(turned).then("OA").otherwise("EA").alias("alt"))["alt"]
    assert found.frame["ea"].equals(alt, check_names=False)
    sign = np.where(turned.to_numpy(), -1, 1)
    np.testing.assert_array_equal(found.column("beta"), sign * given["BETA"].to_numpy())
    assert found.frame["chrom"].unique().sort().to_list() == ["1", "X"]
    record = json.loads((folder / "h.tsv.run.json").read_text())
    assert record["inputs"].keys() == {"table.tsv", "genome.fa"}
    # With an index beside it the same.
    width = sum(len(line) + 1 for line in (">chr1",))
    length = 4000 + -(-4000 // 60)
    second = width + length + len(">chrX\n")
    (folder / "genome.fa.fai").write_text(
        f"chr1\t4000\t{width}\t60\t61\nchrX\t4000\t{second}\t60\t61\n"
    )
    assert harmonised("--reference", "genome.fa", "--out", "i.tsv") == 0
    assert (folder / "i.tsv").read_bytes() == (folder / "h.tsv").read_bytes()


def test_gwas_ssf_of_a_genome(folder, capsys):
    words = ["--to", "ssf", "--build", "hg38", "--metadata", "about.yaml", "--out", "h.tsv.gz"]
    assert harmonised("--reference", "genome.fa", *words) == 0
    assert validate_gwas_ssf("h.tsv.gz").valid
    assert len(read_gwas_ssf("h.tsv.gz")) == N
    codes = pl.read_csv("h.tsv.gz", separator="\t")["hm_code"].value_counts()
    assert dict(codes.iter_rows()) == {10: 150, 11: 150}


def test_insertions_and_deletions(folder, capsys):
    """A run of six T from 2003 on, of which the table and the reference take one elsewhere."""
    row = {"CHR": "1", "SNP": "rsI", "EAF": 0.2, "BETA": 2.0, "SE": 0.5, "N": 5000, "INFO": 1.0}
    given = pl.DataFrame([{**row, "BP": 2007, "EA": "T", "OA": "TT"}])
    given.write_csv("indel.tsv", separator="\t")
    (folder / "g.bim").write_text("1 rsI 0 2002 A AT\n")
    plain = ["sumstats", "harmonise", "indel.tsv", "--reference", "g.bim", "--out", "o.tsv"]
    assert main(plain) == 2
    assert "1 are at other positions" in capsys.readouterr().err
    assert main([*plain, "--genome", "genome.fa"]) == 0
    found = read_summary_statistics("o.tsv").frame
    assert found.select("pos", "ea", "oa", "beta").rows() == [(2002, "A", "AT", 2.0)]
    both = ["sumstats", "combine", "a=indel.tsv", "b=o.tsv", "--out", "e.zarr"]
    assert main([*both, "--genome", "genome.fa"]) == 0
    assert read_effects("e.zarr").bhat.tolist() == [[2.0, 2.0]]
    assert pl.read_csv("e.zarr.variants.tsv", separator="\t").rows() == [
        ("rsI", 1, 2007, "rsI", "TT", "T")
    ]
    alone = ["sumstats", "harmonise", "indel.tsv", "--reference", "genome.fa", "--out", "n.tsv"]
    capsys.readouterr()
    assert main(alone) == 2  # nothing tells whether it is an insertion or a deletion
    assert "either allele of which is in the genome" in capsys.readouterr().err
    table = pl.read_csv("table.tsv", separator="\t", infer_schema=False)
    straight = table[1::2].vstack(given.cast(pl.String).select(table.columns))
    straight.write_csv("straight.tsv", separator="\t")
    assert main(["sumstats", "harmonise", "straight.tsv", *alone[3:]]) == 0
    assert "1 insertions and deletions either allele" in capsys.readouterr().out
    assert read_summary_statistics("n.tsv").frame.select("pos", "oa", "ea").rows()[-1] == (
        2002, "AT", "A",
    )  # fmt: skip


def test_combine_on_a_genome(folder, capsys):
    frame = pl.read_csv("table.tsv", separator="\t")
    frame.select(*frame.columns[:3], EA="OA", OA="EA", BETA=-pl.col("BETA"), SE="SE").write_csv(
        "other.csv"
    )
    words = ["sumstats", "combine", "a=table.tsv", "b=other.csv", "--out", "e.zarr"]
    assert main([*words, "--reference", "genome.fa"]) == 0
    effects = read_effects("e.zarr")
    np.testing.assert_array_equal(effects.bhat[:, 0], effects.bhat[:, 1])
    assert effects.effects.tolist() == frame["SNP"].to_list()
    assert capsys.readouterr().out.count("150 flipped") == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "harmonise table.tsv --reference genome.fa --genome genome.fa --out o.tsv",
            "--genome does nothing where --reference is a genome: leave it out.",
        ),
        (
            "harmonise table.tsv --reference genome.fa --palindromic-maf 0.3 --out o.tsv",
            "--palindromic-maf does nothing where --reference is a genome",
        ),
        ("harmonise table.tsv --reference no.fa --out o.tsv", "no.fa: there is no such file"),
        ("harmonise table.tsv --reference packed.fa.gz --out o.tsv", "compress it with bgzip"),
        (
            "convert table.tsv --to ssf --filters gwaslab --out o.tsv",
            "GWAS-SSF has no place for STATUS",
        ),
        (
            "convert table.tsv --to tsv --allow-standardised --out o.tsv",
            "--allow-standardised does nothing here (every row has its own effect",
        ),
        (
            "combine a=table.tsv b=table.tsv --allow-standardised --out e.zarr",
            "--allow-standardised does nothing here",
        ),
        (
            "convert table.tsv --to tsv --allow-standardised --columns z=BETA --out o.tsv",
            "or lacks z, a frequency or a sample size",
        ),
    ],
)
def test_errors(folder, words, text, capsys):
    (folder / "packed.fa.gz").write_bytes(gzip.compress((folder / "genome.fa").read_bytes()))
    before = sorted(folder.iterdir())
    assert main(["sumstats", *words.split()]) == 2
    said = capsys.readouterr().err
    assert text in said and len(said.strip().splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def status_of(path):
    return pl.read_csv(path, separator="\t", columns=["STATUS"])["STATUS"]


def test_filters(folder, capsys):
    words = ["sumstats", "convert", "table.tsv", "--to", "tsv", "--filters"]
    assert main([*words, "ldsc", "--out", "ldsc.tsv"]) == 0
    said = capsys.readouterr().out
    assert "left out: 20 rows with info below 0.9" in said
    assert "left out: 10 rows with sample size below the 90th percentile / 1.5, or none" in said
    assert "written: ldsc.tsv (270 rows)" in said
    record = json.loads((folder / "ldsc.tsv.run.json").read_text())
    assert record["counts"]["left_out"] == {"low_info": 20, "small_n": 10}
    assert main([*words, "mungesumstats", "--out", "m.tsv"]) == 0
    assert "(280 rows)" in capsys.readouterr().out
    few = ["--columns", "chrom=CHR,pos=BP,ea=EA,oa=OA,beta=BETA,se=SE"]
    assert main([*words, "mungesumstats", *few, "--out", "few.tsv"]) == 0
    said = capsys.readouterr().out
    assert "filters mungesumstats: not applied, not in the table: info below 0.9" in said
    assert "filters mungesumstats: every row passes" in said
    assert main([*words, "gwaslab", "--build", "hg19", "--out", "g.tsv"]) == 0
    assert status_of("g.tsv").to_list() == [1950090] * N
    assert harmonised("--reference", "genome.fa", "--filters", "gwaslab", "--out", "h.tsv") == 0
    status = status_of("h.tsv").to_list()
    assert status == [9950010, 9950000] * (N // 2)
    read_summary_statistics("h.tsv")  # the column is no obstacle
    wanted = ["--reference", "genome.fa", "--filters", "ldsc", "--out", "hl.tsv"]
    assert harmonised(*wanted) == 0
    assert "270 rows; genome.fa" in capsys.readouterr().out


def test_effects_of_z(folder, capsys):
    frame = pl.read_csv("table.tsv", separator="\t")
    z = frame.select(*frame.columns[:6], "N", Z=pl.col("BETA") * 2)
    z.write_csv("z.tsv", separator="\t")
    words = ["sumstats", "convert", "z.tsv", "--to", "tsv", "--allow-standardised"]
    assert main([*words, "--out", "b.tsv"]) == 0
    assert "effects of 300 rows made of z, frequency and sample size" in capsys.readouterr().out
    found = read_summary_statistics("b.tsv")
    f, n, values = (z[name].to_numpy() for name in ("EAF", "N", "Z"))
    se = 1 / np.sqrt(2 * f * (1 - f) * (n + values**2))
    np.testing.assert_allclose(found.column("se"), se, rtol=1e-14)
    np.testing.assert_allclose(found.column("beta"), values * se, rtol=1e-14)
    both = ["sumstats", "combine", "a=table.tsv", "b=z.tsv", "--out", "e.zarr"]
    assert main(both) == 2
    assert "or read it with --allow-standardised, which needs" in capsys.readouterr().err
    assert main([*both, "--allow-standardised"]) == 0
    np.testing.assert_allclose(read_effects("e.zarr").bhat[:, 1], values * se, rtol=1e-14)
    assert harmonised("--reference", "z.tsv", "--out", "r.tsv") == 0  # z is enough of a reference
