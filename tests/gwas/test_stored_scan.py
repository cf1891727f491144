"""Scans into a store: the same bits as in memory, whoever works and however often it was killed."""

import gzip
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2

from plait import mash
from plait.cli.main import main
from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import CapacityError, DataWarning, FileFormatError, OptionError, OutputError
from plait.execution import stored_output
from plait.gwas import AssociationResult, VariantFilter, scan
from plait.io import open_genotypes, read_effects, read_phenotypes, validate_gwas_ssf
from plait.io.plink import write_bed

N, M = 60, 30_000
CHUNKS = 4
"""A chunk of a store of two traits has 8192 variants."""
STATISTICS = ("beta", "se", "log10p", "n", "frequency")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A bed with missing calls on three chromosomes, one of them in two runs, and two traits."""
    folder = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(1)
    calls = random.binomial(2, random.uniform(0.05, 0.5, (M, 1)), (M, N)).astype(np.int8)
    calls[random.random((M, N)) < 0.01] = -1
    chrom = np.repeat(["1", "2", "1", "3"], [9000, 6000, 3000, M - 18_000])
    alleles = ["A"] * M, ["G"] * M
    ids = [f"rs{j}" for j in range(M)]
    table = VariantTable.of(chrom, np.arange(1, M + 1), *alleles, ids)
    samples = [f"s{i}" for i in range(N)]
    write_bed(folder / "g.bed", iter([calls]), table, samples)
    values = random.normal(size=(N, 2))
    values[3:6, 1] = np.nan
    pl.DataFrame({"IID": samples, "a": values[:, 0], "b": values[:, 1]}).write_csv(
        folder / "y.csv", null_value="NA"
    )
    return folder


def opened(study):
    return open_genotypes(study / "g.bed"), read_phenotypes(study / "y.csv")


RULES = VariantFilter(min_call_rate=0.95, min_minor_count=5)


def assert_same(found, expected):
    for name in STATISTICS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.V0, expected.V0)
    assert found.filtered == expected.filtered


@pytest.mark.parametrize("model", ["linear", "mixed", "logistic"])
def test_the_same_bits_as_in_memory(study, tmp_path, model):
    genotypes, traits = opened(study)
    if model == "logistic":
        values = np.where(np.isnan(traits.values), np.nan, traits.values > 0)
        traits = SampleTable(traits.samples, traits.names, values)
    rules = RULES
    if model == "mixed":  # of 60 samples the relationships of any chromosome are noise
        rules = VariantFilter(min_minor_count=20)
    options = {"model": model, "variant_filter": rules}
    expected = scan(genotypes, traits, **options)
    found = scan(genotypes, traits, out=tmp_path / "a.zarr", threads=1, **options)
    assert_same(found, expected)
    middle = 10 ** np.nanmedian(expected.log10p, axis=0)
    assert found.lambda_gc == pytest.approx(chi2.isf(middle, 1) / chi2.ppf(0.5, 1), rel=1e-12)
    assert found.summary() == expected.summary()
    assert found.variants.tolist() == expected.variants.tolist()
    assert found.to_table().equals(expected.to_table(), null_equal=True)
    again = scan(genotypes, traits, out=tmp_path / "b.zarr", threads=2, **options)
    assert_same(again, expected)
    assert found.allclose(again, rtol=0)


def test_the_folder_of_another_scan_is_called_by_its_command(tmp_path):
    (tmp_path / "interactions.zarr").mkdir()
    with pytest.raises(FileFormatError, match=r"that of 'plait gwas interaction'\)\. Give what"):
        AssociationResult.open(tmp_path)


def test_workers_of_a_pool_write_the_same(study, tmp_path):
    genotypes, traits = opened(study)
    fork = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(2, mp_context=fork) as pool,
        pytest.raises(OptionError, match="get_context\\('spawn'\\)"),
    ):
        scan(genotypes, traits, out=tmp_path / "a.zarr", executor=pool)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = scan(
            genotypes, traits, variant_filter=RULES, out=tmp_path / "a.zarr", executor=pool
        )
    assert_same(found, scan(genotypes, traits, variant_filter=RULES))


def test_what_it_hands_over(study, tmp_path):
    genotypes, traits = opened(study)
    found = scan(genotypes, traits, variant_filter=RULES, out=tmp_path / "a.zarr")
    found.write_effects(tmp_path / "effects.zarr")
    expected = scan(genotypes, traits, variant_filter=RULES).to_effects()
    effects = read_effects(tmp_path / "effects.zarr")
    np.testing.assert_array_equal(effects.bhat, expected.bhat)
    np.testing.assert_array_equal(effects.shat, expected.shat)
    np.testing.assert_array_equal(effects.V, expected.V)
    assert effects.effects.tolist() == expected.effects.tolist()
    with pytest.warns(DataWarning, match="only 2 conditions"):
        assert mash.mash_open_data(tmp_path / "effects.zarr").n_effects == len(expected.bhat)
    found.write_parquet(tmp_path / "a.parquet")
    table = pl.read_parquet(tmp_path / "a.parquet")
    assert table.equals(found.to_table(), null_equal=True)
    found.write_tsv(tmp_path / "a.tsv.gz")
    text = gzip.decompress((tmp_path / "a.tsv.gz").read_bytes()).decode().splitlines()
    assert len(text) == M + 1
    assert text[0].split("\t")[:6] == ["chrom", "pos", "id", "oa", "ea", "eaf"]
    statistics = found.to_summary_statistics("b")
    known = np.isfinite(np.asarray(found.se)[:, 1])
    assert len(statistics) == known.sum()
    np.testing.assert_array_equal(statistics.column("beta"), np.asarray(found.beta)[known, 1])
    np.testing.assert_array_equal(statistics.column("n"), np.asarray(found.n)[known, 1])


class Stop(Exception):
    """The end of a scan in the middle of it."""


def interrupted(study, out, blocks=2, **options):
    """Leave a scan behind in which only the first blocks are finished."""
    recorded, seen = stored_output.Run.record, []

    def record(self, block, *what):
        recorded(self, block, *what)
        seen.append(block)
        if len(seen) == blocks:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_output.Run, "record", record)
        with pytest.raises(Stop):
            scan(*opened(study), variant_filter=RULES, out=out, threads=1, **options)


@pytest.mark.parametrize("model", ["linear", "mixed"])
def test_an_interrupted_scan_goes_on(study, tmp_path, model):
    interrupted(study, tmp_path / "a.zarr", model=model)
    worked_on = []
    recorded = stored_output.Run.record

    def record(self, block, *what):
        recorded(self, block, *what)
        worked_on.append(block)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_output.Run, "record", record)
        options = {"model": model, "variant_filter": RULES}
        found = scan(*opened(study), out=tmp_path / "a.zarr", **options)
    assert 8192 <= sum(len(block) for block in worked_on) < M
    expected = scan(*opened(study), **options)
    assert_same(found, expected)

    def order(check):
        return check["chromosome"], check["h2"]

    assert sorted(found.checks, key=order) == sorted(expected.checks, key=order)
    assert len(found.checks) == (6 if model == "mixed" else 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_damaged_region_is_made_again(study, tmp_path):
    interrupted(study, tmp_path / "a.zarr")
    (chunk,) = (tmp_path / ".a.zarr.run").glob("*/store/beta/c/1/0")
    chunk.write_bytes(chunk.read_bytes()[:-50])
    found = scan(*opened(study), variant_filter=RULES, out=tmp_path / "a.zarr")
    assert_same(found, scan(*opened(study), variant_filter=RULES))


def test_another_filter_is_another_scan(study, tmp_path):
    interrupted(study, tmp_path / "a.zarr")
    with pytest.warns(DataWarning, match="min_minor_count was 5 and is 6; starting anew"):
        scan(*opened(study), variant_filter=VariantFilter(0.95, 6), out=tmp_path / "a.zarr")


def test_other_genotypes_of_the_same_size_are_another_scan(study, tmp_path):
    interrupted(study, tmp_path / "a.zarr")
    _, traits = opened(study)
    for suffix in (".bim", ".fam"):
        (tmp_path / f"g{suffix}").write_bytes((study / f"g{suffix}").read_bytes())
    data = bytearray((study / "g.bed").read_bytes())
    data[100] ^= 1
    (tmp_path / "g.bed").write_bytes(data)
    other = open_genotypes(tmp_path / "g.bed")
    with pytest.warns(DataWarning, match="because the genotypes changed"):
        scan(other, traits, variant_filter=RULES, out=tmp_path / "a.zarr")


def test_outputs_that_cannot_be(study, tmp_path):
    genotypes, traits = opened(study)
    with pytest.raises(CapacityError, match="raise --memory"):
        scan(genotypes, traits, out=tmp_path / "a.zarr", memory="2MB")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(OutputError, match="--overwrite"):
        scan(genotypes, traits, out=tmp_path / "a.zarr")


def words(*more):
    given = ["--geno", "g.bed", "--pheno", "y.csv", "--min-mac", "5", "--out", "out"]
    return ["gwas", "scan", *given, *more]


@pytest.mark.parametrize("workers", [["--threads", "1"], ["--dask", "local:2"]])
def test_a_killed_command_goes_on(study, tmp_path, workers):
    for name in ("g.bed", "g.bim", "g.fam", "y.csv"):
        (tmp_path / name).symlink_to(study / name)
    line = [sys.executable, "-m", "plait", *words("--model", "mixed", *workers)]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob(".associations.zarr.run/*/blocks/*.json")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out/associations.zarr").exists()
    again = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "resumed after" in again.stderr
    found = AssociationResult.open(tmp_path / "out/associations.zarr")
    rules = VariantFilter(min_minor_count=5)
    assert_same(found, scan(*opened(study), model="mixed", variant_filter=rules))


def test_a_command_stopped_while_it_writes_tables_keeps_its_scan(study, tmp_path, monkeypatch):
    for name in ("g.bed", "g.bim", "g.fam", "y.csv"):
        (tmp_path / name).symlink_to(study / name)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(AssociationResult, "write_parquet", lambda *_, **__: 1 / 0)
        assert main(words("--quiet")) == 1
    made = (tmp_path / "out/associations.zarr/zarr.json").stat().st_mtime_ns
    assert main(words("--quiet")) == 0
    assert (tmp_path / "out/associations.zarr/zarr.json").stat().st_mtime_ns == made
    assert not (tmp_path / "out/.scan.json").exists()
    assert json.loads((tmp_path / "out/run.json").read_text())["fingerprints"]["the genotypes"]
    assert main(words("--quiet")) == 2  # it exists
    assert main(words("--quiet", "--overwrite")) == 0


def test_formats_of_the_table(study, tmp_path, monkeypatch, capsys):
    for name in ("g.bed", "g.bim", "g.fam", "y.csv"):
        (tmp_path / name).symlink_to(study / name)
    monkeypatch.chdir(tmp_path)
    assert main(words("--quiet", "--format", "tsv")) == 0
    assert (tmp_path / "out/associations.tsv.gz").is_file()
    assert main(words("--quiet", "--format", "ssf", "--overwrite")) == 2
    assert "--metadata" in capsys.readouterr().err
    (tmp_path / "m.yaml").write_text(
        "genome_assembly: GRCh38\ncoordinate_system: 1-based\ngenotyping_technology:\n  - Array\n"
        "is_harmonised: false\nsamples:\n  - sample_size: 60\n"
        "    sample_ancestry_category:\n      - European\n"
    )
    line = words("--quiet", "--format", "ssf", "--metadata", "m.yaml", "--overwrite")
    assert main(line) == 0
    for trait in "ab":
        assert validate_gwas_ssf(tmp_path / f"out/associations.ssf/{trait}.tsv.gz").valid
