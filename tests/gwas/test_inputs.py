"""A scan opens what it is given: paths, data frames of pandas and polars, or objects."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from plait import gwas
from plait.errors import DataWarning, FileFormatError, InputError, InputTypeError, LabelError
from plait.io import open_genotypes, read_covariates, read_phenotypes
from plait.io.plink import write_bed
from plait.simulate import cohort

N, M = 150, 200


@pytest.fixture(scope="module")
def people():
    return cohort(n_samples=N, n_variants=M, n_causal=2, seed=4)


@pytest.fixture
def here(people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bed("geno.bed", people.blocks(), people.variants, people.samples)
    for name, table in (("traits", people.traits), ("covariates", people.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        pl.DataFrame({"IID": table.samples.tolist()} | columns).write_csv(f"{name}.csv")
    return tmp_path


def with_polars(path):
    return pl.read_csv(path)


def with_pandas(path):
    return pd.read_csv(path, float_precision="round_trip")


def with_pandas_index(path):
    return with_pandas(path).set_index("IID")


@pytest.mark.parametrize("given", [str, with_polars, with_pandas, with_pandas_index])
def test_a_scan_of_whatever_is_given(here, given):
    expected = gwas.scan(
        open_genotypes("geno.bed"), read_phenotypes("traits.csv"), read_covariates("covariates.csv")
    )
    found = gwas.scan("geno.bed", given("traits.csv"), given("covariates.csv"))
    assert found.traits == expected.traits
    for name in ("beta", "se", "log10p", "n"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.provenance.inputs == expected.provenance.inputs


def test_paths_and_frames_go_together(here):
    frame = with_pandas("traits.csv").set_index("IID")["trait2"].to_frame()
    found = gwas.scan(here / "geno.bed", frame, "covariates.csv")
    expected = gwas.scan("geno.bed", "traits.csv", "covariates.csv")
    np.testing.assert_array_equal(found.beta[:, 0], expected.beta[:, 1])
    assert found.traits == ("trait2",)


def test_samples_are_matched_by_name(here):
    """Rows may be filtered and shuffled: the numbering that pandas leaves behind names nobody."""
    frame = with_pandas("traits.csv")
    shuffled = frame.sample(frac=1, random_state=1)
    found = gwas.scan("geno.bed", shuffled[shuffled["IID"] != "person00003"])
    traits = read_phenotypes("traits.csv")
    kept = traits.samples != "person00003"
    expected = gwas.scan("geno.bed", type(traits)(traits.samples[kept], traits.names,
                                                  traits.values[kept]))  # fmt: skip
    np.testing.assert_array_equal(found.beta, expected.beta)


def test_a_frame_is_not_changed(here):
    frame = with_pandas("traits.csv")
    frame.loc[:5, "trait1"] = -9.0
    before = frame.copy()
    gwas.scan("geno.bed", frame[["IID", "trait2"]])
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (lambda: ("absent.bed", "traits.csv"), FileFormatError, "absent.bed: there is no such"),
        (lambda: ("geno.bed", "absent.csv"), FileFormatError, "absent.csv: there is no such file"),
        (lambda: (np.zeros((2, 3)), "traits.csv"), InputTypeError, "genotypes are of the type nda"),
        (lambda: ("geno.bed", [1.0, 2.0]), InputTypeError, "the traits are of the type list; give"),
        (lambda: ("geno.bed", pl.read_csv("traits.csv"), {}), InputTypeError, "covariates are of"),
        (
            lambda: ("geno.bed", pd.DataFrame(np.zeros((N, 2)))),
            LabelError,
            "the table of traits does not name its samples: give it a column IID",
        ),
        (
            lambda: ("geno.bed", pl.DataFrame({"IID": ["a", "b"], "y": ["tall", "1"]})),
            InputError,
            "the table of traits: column 'y' has 'tall' for sample 'a'",
        ),
    ],
)
def test_what_cannot_be_opened(here, given, error, text):
    with pytest.raises(error, match=text):
        gwas.scan(*given())


def test_a_quality_asked_of_hard_calls(here):
    with pytest.warns(DataWarning, match="min_info does nothing: these genotypes are hard calls"):
        gwas.scan("geno.bed", "traits.csv", variant_filter=gwas.VariantFilter(min_info=0.3))


@pytest.mark.parametrize("model", ["linear", "logistic"])
@pytest.mark.parametrize("loco", [True, False])
def test_loco_is_for_the_mixed_model(here, model, loco):
    with pytest.raises(InputError, match=f"loco={loco} is for model='mixed'; in the {model}"):
        gwas.scan("geno.bed", "traits.csv", model=model, loco=loco)
