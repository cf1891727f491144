"""A scan opens what it is given: paths, data frames of pandas and polars, or objects."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib import pyplot as plt

from plait import gwas
from plait.cli.main import main
from plait.data.variants import VariantTable
from plait.errors import (
    DataWarning,
    FileFormatError,
    InputError,
    InputTypeError,
    LabelError,
)
from plait.gwas import AssociationResult, VariantFilter, scan, scan_interaction
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


@pytest.mark.parametrize("given", [str, with_polars, with_pandas, with_pandas_index])
def test_an_interaction_scan_of_whatever_is_given(here, given):
    covariates = read_covariates("covariates.csv")
    expected = gwas.scan_interaction(
        open_genotypes("geno.bed"), read_phenotypes("traits.csv"), covariates.select(["age"]),
        covariates,
    )  # fmt: skip
    alone = pl.read_csv("covariates.csv").select("IID", "age")
    alone.write_csv("age.csv")
    for environment in ("age", given("age.csv")):
        found = gwas.scan_interaction(
            "geno.bed", given("traits.csv"), environment, given("covariates.csv")
        )
        assert found.environment == "age"
        assert found.allclose(expected, rtol=0)
        assert found.provenance.inputs == expected.provenance.inputs
    without = gwas.scan_interaction("geno.bed", given("traits.csv"), given("age.csv"))
    assert without.provenance.options["covariates"] == ["age"]


def test_an_environment_of_two_groups_by_its_name(here):
    frame = pl.read_csv("covariates.csv")
    diet = ["fat" if k % 3 else "lean" for k in range(frame.height)]
    cage = [f"c{k % 4}" for k in range(frame.height)]
    frame = frame.with_columns(pl.Series("diet", diet), pl.Series("cage", cage))
    found = gwas.scan_interaction("geno.bed", "traits.csv", "diet", frame)
    assert found.environment == "diet=lean"
    alone = gwas.scan_interaction("geno.bed", "traits.csv", frame.select("IID", "diet"), frame)
    assert alone.allclose(found, rtol=0)
    cages = gwas.scan_interaction("geno.bed", "traits.csv", "cage", frame)
    assert cages.groups == ("cage=c0", "cage=c1", "cage=c2", "cage=c3")
    alone = gwas.scan_interaction("geno.bed", "traits.csv", frame.select("IID", "cage"), frame)
    assert alone.allclose(cages, rtol=0)
    for covariates, known in ((frame, "age, sex"), (None, "none")):
        with pytest.raises(LabelError, match=rf"'heat' is neither a covariate \(there are {known}"):
            gwas.scan_interaction("geno.bed", "traits.csv", "heat", covariates)
    with pytest.raises(InputTypeError, match="the environment are of the type float"):
        gwas.scan_interaction("geno.bed", "traits.csv", 3.5, frame)


def test_genotypes_by_their_path(here):
    """Everything that goes over genotypes opens them itself."""
    opened = open_genotypes("geno.bed")
    scanned = gwas.scan(opened, "traits.csv")
    log10p = scanned.log10p[:, 0]
    for path in ("geno.bed", here / "geno.bed"):
        components = gwas.principal_components(path, 3)
        assert components.allclose(gwas.principal_components(opened, 3), rtol=0)
        assert gwas.genotype_quality(path).allclose(gwas.genotype_quality(opened), rtol=0)
        np.testing.assert_array_equal(gwas.ld_prune(path), gwas.ld_prune(opened))
        clumps = gwas.clump(path, log10p, p_index=0.01)
        np.testing.assert_array_equal(clumps.index, gwas.clump(opened, log10p, p_index=0.01).index)
        drawn = gwas.plot_regional(scanned, path)[0].collections[0].get_offsets()
        expected = gwas.plot_regional(scanned, opened)[0].collections[0].get_offsets()
        np.testing.assert_array_equal(drawn, expected)
        plt.close("all")
    for work in (gwas.principal_components, gwas.genotype_quality, gwas.ld_prune):
        with pytest.raises(InputTypeError, match="the genotypes are of the type ndarray; give"):
            work(np.zeros((2, 3)))


def test_components_beside_covariates(here):
    components = gwas.principal_components("geno.bed", 2)
    expected = components.to_covariates(read_covariates("covariates.csv"))
    for others in ("covariates.csv", with_pandas("covariates.csv"), with_polars("covariates.csv")):
        found = components.to_covariates(others)
        assert found.names == (*expected.names[:-2], "PC1", "PC2")
        np.testing.assert_array_equal(found.values, expected.values)


def test_components_of_imputed_genotypes_are_of_their_calls(here, people):
    """As on the command line: a path is read as hard calls, whatever dosages it has."""
    calls = np.concatenate(list(people.blocks())).astype(float)
    dosages = np.where(calls == 1, 0.95, calls)
    frame = pl.DataFrame({"id": people.samples.tolist()})
    frame.hstack(
        [pl.Series(f"m{j}", row) for j, row in enumerate(dosages)]
    ).write_csv("dosages.csv")  # fmt: skip
    assert open_genotypes("dosages.csv").kind == "dosage"
    found = gwas.principal_components("dosages.csv", 2, r2=None)
    expected = gwas.principal_components("geno.bed", 2, r2=None)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    quality = gwas.genotype_quality("dosages.csv")
    np.testing.assert_array_equal(quality.heterozygous, (calls == 1).sum(axis=0))


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


def family_files(folder, fam, table):
    """Genotypes with the families and names of ``fam``, and a trait and a covariate of others."""
    random = np.random.default_rng(3)
    calls = random.integers(0, 3, (40, len(fam))).astype(np.int8)
    variants = VariantTable.of(["1"] * 40, np.arange(40) + 1, ["A"] * 40, ["G"] * 40)
    write_bed(folder / "g.bed", [calls], variants, [f"s{i}" for i in range(len(fam))])
    lines = (f"{family}\t{name}\t0\t0\t0\t-9\n" for family, name in fam)
    (folder / "g.fam").write_text("".join(lines))
    y, c = random.normal(size=(2, len(table)))
    for name, values in (("y", y), ("c", c)):
        rows = [f"{f}\t{i}\t{v:.6f}\n" for (f, i), v in zip(table, values, strict=True)]
        (folder / f"{name}.tsv").write_text(f"#FID\tIID\t{name}\n" + "".join(rows))
    return calls, np.round(y, 6), np.round(c, 6)


@pytest.mark.parametrize("which", ["genotypes", "table", "both", "neither"])
def test_families_tell_names_apart_wherever_one_file_repeats_them(tmp_path, which):
    """Names repeat among samples that only one of the files has."""
    common = [(f"F{i % 3}", f"p{i}") for i in range(30)]
    repeated = [("F9", "p3"), ("F9", "p4")]
    fam = common + (repeated if which in ("genotypes", "both") else [])
    table = common[::-1] + (repeated if which in ("table", "both") else [])
    calls, y, c = family_files(tmp_path, fam, table)
    rules = VariantFilter(min_call_rate=None, min_minor_count=1)
    paths = [tmp_path / name for name in ("g.bed", "y.tsv", "c.tsv")]
    found = scan(*paths, variant_filter=rules, precision="double")
    order = [table.index(pair) for pair in fam if pair in table]
    used = [row for row, pair in enumerate(fam) if pair in table]
    assert (found.n == len(used)).all() and len(used) == 30 + 2 * (which == "both")
    x = np.column_stack([np.ones(len(used)), c[order], calls[7][used]])
    expected = np.linalg.lstsq(x, y[order], rcond=None)[0][-1]
    assert found.beta[7, 0] == pytest.approx(expected, rel=1e-9)
    own = tmp_path / "c.tsv"  # the environment, a table with families of its own
    changing = scan_interaction(*paths[:2], own, variant_filter=rules)
    assert (changing.n == len(used)).all()
    line = "gwas scan --geno g.bed --pheno y.tsv --covar c.tsv --min-mac 1 --pcs 1 --quiet --out o"
    words = [str(tmp_path / w) if w.endswith((".bed", ".tsv")) or w == "o" else w
             for w in line.split()]  # fmt: skip
    assert main(words) == 0
    assert np.asarray(AssociationResult.open(tmp_path / "o").n).max() == len(used)
