"""Interaction scans into a store: the same bits as in memory, whoever works and whatever fails."""

import gzip
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt
from scipy.stats import chi2

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import (
    CapacityError,
    DataWarning,
    InputError,
    LabelError,
    NotAvailableError,
    OptionError,
    OutputError,
)
from plait.execution import stored_output
from plait.gwas import (
    InteractionResult,
    VariantFilter,
    plot_manhattan,
    plot_qq,
    scan_interaction,
)
from plait.gwas.interaction_results import STATISTICS
from plait.io import open_genotypes, read_effects
from plait.io.plink import write_bed
from tests.gwas.conftest import InMemory, draw_calls

N, M = 80, 20_000
"""A chunk of a store of two traits has 8192 variants: three of them."""
RULES = VariantFilter(min_call_rate=0.95, min_minor_count=5)
ARRAYS = (*STATISTICS, "n", "frequency", "chrom", "pos", "id", "oa", "ea")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A bed with missing calls, two traits on different samples, an environment, a covariate."""
    folder = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(4)
    calls = draw_calls(random, M, N, missing=0.01)
    samples = [f"s{i}" for i in range(N)]
    ids = [f"rs{j}" for j in range(M)]
    table = VariantTable.of(["1"] * M, np.arange(1, M + 1), ["A"] * M, ["G"] * M, ids)
    write_bed(folder / "g.bed", iter([calls]), table, samples)
    values = random.normal(size=(N, 4))
    values[3:6, 1] = np.nan
    names = np.array(samples)
    return (
        open_genotypes(folder / "g.bed"),
        SampleTable(names, ("a", "b"), values[:, :2]),
        SampleTable(names, ("heat",), 20 + 3 * values[:, 2:3]),
        SampleTable(names, ("size",), values[:, 3:]),
    )


@pytest.fixture(scope="module")
def expected(study):
    """What is found in memory, plain and robust."""
    return {
        robust: scan_interaction(*study, robust=robust, variant_filter=RULES)
        for robust in (False, True)
    }


def stored(study, out, **options):
    return scan_interaction(*study, **({"variant_filter": RULES} | options), out=out)


def assert_same(found, expected):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name)[:], getattr(expected, name))
    for name in ("traits", "environment", "robust", "filtered"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.provenance.options == expected.provenance.options


@pytest.mark.parametrize("robust", [False, True])
def test_lambda_and_pictures_are_of_the_interaction(study, expected, tmp_path, robust):
    """In memory and from a store, of the p-values whose degrees of freedom may differ."""
    made, found = expected[robust], stored(study, tmp_path / "o.zarr", robust=robust)
    logs = made.log10p_interaction
    heights = -logs[np.isfinite(logs).all(axis=1)]
    assert len(heights) < len(logs)
    known = chi2.isf(10 ** np.nanmedian(logs, axis=0), 1) / chi2.isf(0.5, 1)
    for result in (made, found):
        np.testing.assert_allclose(result.lambda_gc, known, rtol=1e-9)
        for trait, number in (("a", 0), ("b", 1)):
            assert f"{trait}: 0 interactions at p < 5e-8, lambda {known[number]:.3f}, surest" in (
                result.summary()
            )
        ax = plot_manhattan(result)
        assert ax.get_title("left") == "surest of all traits: interaction with heat"
        drawn = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections])
        assert drawn.max() == pytest.approx(np.nanmax(-logs), rel=1e-6)
        ax = plot_manhattan(result, "b")
        assert ax.get_title("left") == "b: interaction with heat"
        drawn = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections])
        assert drawn.max() == pytest.approx(np.nanmax(-logs[:, 1]), rel=1e-6)
        ax = plot_qq(result, caption=True)
        assert ax.get_title("left") == "interaction with heat"
        said = [text.get_text() for text in ax.get_legend().get_texts()]
        assert said == [f"{t}, lambda {known[k]:.2f}" for k, t in enumerate("ab")]
        (caption,) = (t.get_text() for t in ax.figure.texts)
        assert "without any interaction" in " ".join(caption.split())
        assert plot_qq(result, "a").get_title("left") == "a: interaction with heat"
        plt.close("all")


def test_lambda_where_all_p_are_1_or_none_is_known(expected):
    """Zeros of either sign are the same p-value."""
    made = expected[False]
    logs = np.full_like(made.log10p_interaction, np.nan)
    logs[:5, 0] = [0.0, -0.0, -3.0, -2.0, 0.0]
    found = replace(made, log10p_interaction=logs)
    assert found.lambda_gc[0] == 0
    assert np.isnan(found.lambda_gc[1])
    nothing = np.full_like(logs, np.nan)
    untested = replace(made, log10p_interaction=nothing, se_interaction=nothing)
    for draw in (plot_manhattan, plot_qq):
        with pytest.raises(NotAvailableError, match="no variant was tested; tests left out"):
            draw(untested)


@pytest.mark.parametrize("robust", [False, True])
def test_the_same_bits_as_in_memory(study, expected, tmp_path, robust):
    for number, options in enumerate(
        ({"threads": 1}, {"threads": 2}, {"threads": 2, "memory": "60MB"})
    ):
        found = stored(study, tmp_path / f"{number}.zarr", robust=robust, **options)
        assert_same(found, expected[robust])
    assert found.summary() == expected[robust].summary()
    assert found.to_frame().equals(expected[robust].to_frame(), null_equal=True)
    assert InteractionResult.open(tmp_path / "0.zarr").allclose(expected[robust], rtol=0)
    assert InteractionResult.load(tmp_path / "1.zarr").allclose(expected[robust], rtol=0)


def test_workers_of_a_pool_write_the_same(study, expected, tmp_path):
    fork = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(2, mp_context=fork) as pool,
        pytest.raises(OptionError, match="get_context\\('spawn'\\)"),
    ):
        stored(study, tmp_path / "a.zarr", executor=pool)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert_same(stored(study, tmp_path / "a.zarr", executor=pool), expected[False])


class Stop(Exception):
    """The end of a scan in the middle of it."""


def noting(patch, stop_after=None):
    """Return the list of the blocks that are finished from now on."""
    recorded, seen = stored_output.Run.record, []

    def record(self, block, *what):
        recorded(self, block, *what)
        seen.append(block)
        if len(seen) == stop_after:
            raise Stop

    patch.setattr(stored_output.Run, "record", record)
    return seen


def interrupted(study, out, blocks=2, **options):
    """Leave a scan behind in which only the first blocks are finished."""
    with pytest.MonkeyPatch.context() as patch:
        noting(patch, stop_after=blocks)
        with pytest.raises(Stop):
            stored(study, out, threads=1, **options)


def test_an_interrupted_scan_goes_on(study, expected, tmp_path, monkeypatch):
    interrupted(study, tmp_path / "a.zarr", robust=True)
    assert not (tmp_path / "a.zarr").exists()
    worked_on = noting(monkeypatch)
    found = stored(study, tmp_path / "a.zarr", robust=True)
    assert [(block.start, block.stop) for block in worked_on] == [(16_384, M)]
    assert_same(found, expected[True])
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_damaged_region_is_made_again(study, expected, tmp_path, monkeypatch):
    interrupted(study, tmp_path / "a.zarr")
    (chunk,) = (tmp_path / ".a.zarr.run").glob("*/store/covariance/c/1/0")
    chunk.write_bytes(chunk.read_bytes()[:-50])
    worked_on = noting(monkeypatch)
    assert_same(stored(study, tmp_path / "a.zarr"), expected[False])
    assert sorted(block.start for block in worked_on) == [8192, 16_384]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"robust": True}, "because robust was False and is True"),
        ({"variant_filter": VariantFilter(0.95, 6)}, "min_minor_count was 5 and is 6"),
    ],
)
def test_other_options_are_another_scan(study, tmp_path, change, reason):
    interrupted(study, tmp_path / "a.zarr")
    with pytest.warns(DataWarning, match=reason):
        found = stored(study, tmp_path / "a.zarr", **change)
    plain = {"variant_filter": RULES} | change
    assert_same(found, scan_interaction(*study, **plain))


def test_another_environment_is_another_scan(study, tmp_path):
    interrupted(study, tmp_path / "a.zarr")
    genotypes, traits, heat, size = study
    warmer = SampleTable(heat.samples, heat.names, heat.values + 1)
    with pytest.warns(DataWarning, match="because the environment changed"):
        found = stored((genotypes, traits, warmer, size), tmp_path / "a.zarr")
    assert_same(found, scan_interaction(genotypes, traits, warmer, size, variant_filter=RULES))


def test_outputs_that_cannot_be(study, expected, tmp_path):
    with pytest.raises(CapacityError, match="raise --memory"):
        stored(study, tmp_path / "a.zarr", memory="2MB")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(OutputError, match="--overwrite"):
        stored(study, tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rmdir()
    stored(study, tmp_path / "a.zarr", robust=True)
    with pytest.raises(OutputError, match="--overwrite"):
        stored(study, tmp_path / "a.zarr")
    assert_same(InteractionResult.open(tmp_path / "a.zarr"), expected[True])
    assert_same(stored(study, tmp_path / "a.zarr", overwrite=True), expected[False])


def test_genotypes_without_variants(study, tmp_path):
    _, traits, heat, size = study
    nothing = InMemory(np.empty((0, N)), traits.samples)
    for out in (None, tmp_path / "a.zarr"):
        with pytest.raises(InputError, match="there is no variant"):
            scan_interaction(nothing, traits, heat, size, out=out)
    assert not list(tmp_path.iterdir())


def test_tables(study, expected, tmp_path):
    found = stored(study, tmp_path / "a.zarr")
    at = (12.5, 25)
    table = found.to_table(environments=at)
    assert table.equals(expected[False].to_table(environments=at), null_equal=True)
    beta, covariance = expected[False].effects_at(at)
    np.testing.assert_array_equal(table["beta_at_12.5.b"], beta[:, 1, 0])
    np.testing.assert_array_equal(table["se_at_25.a"], np.sqrt(covariance[:, 0, 1, 1]))
    np.testing.assert_array_equal(table["log10p_joint.a"], found.log10p_joint[:, 0])
    assert table.width == 6 + 2 * (len(STATISTICS) + 1 + 2 * len(at))
    found.write_parquet(tmp_path / "a.parquet", environments=at)
    assert pl.read_parquet(tmp_path / "a.parquet").equals(table, null_equal=True)
    found.write_tsv(tmp_path / "a.tsv.gz")
    lines = gzip.decompress((tmp_path / "a.tsv.gz").read_bytes()).decode().splitlines()
    assert len(lines) == M + 1
    assert lines[0].split("\t") == found.to_table(slice(0, 0)).columns
    kinds = {"chrom": pl.String}
    read = pl.read_csv(
        tmp_path / "a.tsv.gz", separator="\t", null_values="NA", schema_overrides=kinds
    )
    assert read.equals(found.to_table().fill_nan(None), null_equal=True)
    with pytest.raises(OutputError, match="--overwrite"):
        found.write_parquet(tmp_path / "a.parquet")
    for wrong in ((1, 1), (np.nan,), ((1, 2), (3, 4))):
        with pytest.raises(OptionError, match="finite numbers, each of them once"):
            found.to_table(environments=wrong)


def test_effects_in_two_environments(study, expected, tmp_path):
    found = stored(study, tmp_path / "a.zarr")
    found.write_effects(tmp_path / "effects.zarr", "b", (15, 25))
    effects = read_effects(tmp_path / "effects.zarr")
    whole = expected[False].to_effects("b", (15, 25))
    for name in ("bhat", "shat", "V", "effects"):
        np.testing.assert_array_equal(getattr(effects, name), getattr(whole, name))
    assert effects.contexts == ("heat=15", "heat=25")
    beta, covariance = (part[:, 1] for part in expected[False].effects_at((15, 25)))
    tested = np.isfinite(expected[False].se_interaction[:, 1])
    assert 0 < tested.sum() < M
    assert effects.effects.tolist() == [f"rs{j}" for j in np.flatnonzero(tested)]
    np.testing.assert_array_equal(effects.bhat, beta[tested])
    scaled = effects.shat[:, :, None] * effects.V * effects.shat[:, None, :]
    wider = (scaled[:, 0, 0] / covariance[tested, 0, 0])[:, None, None]
    assert (wider > 1 - 1e-12).all() and wider.max() > 1.01
    np.testing.assert_allclose(scaled, wider * covariance[tested], rtol=1e-12)
    with pytest.raises(LabelError, match="no trait 'c'; there are a, b"):
        found.to_effects("c", (15, 25))
    with pytest.raises(OptionError, match="3 values; give two"):
        found.to_effects("b", (15, 20, 25))
    nobody = scan_interaction(*study, variant_filter=VariantFilter(min_minor_count=200))
    with pytest.raises(NotAvailableError, match="no variant was tested for 'a'"):
        nobody.to_effects("a", (15, 25))


PEAK = """
import resource, sys
import numpy as np
from plait.data.phenotypes import SampleTable
from plait.gwas import scan_interaction
from plait.io import open_genotypes

genotypes = open_genotypes(sys.argv[1])
random = np.random.default_rng(0)
values = random.normal(size=(genotypes.n_samples, 9))
traits = SampleTable(genotypes.samples, tuple("abcdefgh"), values[:, :8])
heat = SampleTable(genotypes.samples, ("heat",), values[:, 8:])
found = scan_interaction(genotypes, traits, heat, out=sys.argv[2], memory="120MB", threads=1)
found.write_parquet(sys.argv[2] + ".parquet")
found.write_effects(sys.argv[2] + ".effects", "a", (0, 1))
found.summary()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_of(folder, n_variants):
    """Peak memory in MiB of a scan of 60 samples and 8 traits, with its tables."""
    random = np.random.default_rng(n_variants)
    place = folder / f"{n_variants}.bed"
    calls = draw_calls(random, 10_000, 60)
    columns = ["1"] * n_variants, np.arange(1, n_variants + 1)
    table = VariantTable.of(*columns, ["A"] * n_variants, ["G"] * n_variants)
    repeated = (calls for _ in range(n_variants // len(calls)))
    write_bed(place, repeated, table, [f"s{i}" for i in range(60)])
    line = [sys.executable, "-c", PEAK, str(place), str(folder / f"{n_variants}.zarr")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_does_not_grow_with_the_number_of_variants(tmp_path):
    """The results of the larger scan alone are 115 MB more: about the same peak."""
    small, large = peak_of(tmp_path, 50_000), peak_of(tmp_path, 250_000)
    assert large - small < 70
