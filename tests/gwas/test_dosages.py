"""Scans of dosages against regressions fitted one by one, and against scans of hard calls."""

import shutil
import subprocess

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import stats

from plait.data.genotype_blocks import read_block
from plait.data.phenotypes import SampleTable
from plait.errors import InputError, OptionError
from plait.gwas import VariantFilter, scan
from plait.gwas.binary import BinaryScan, make_binary_designs
from plait.gwas.interaction import scan_interaction
from plait.gwas.interaction_results import EFFECTS
from plait.io import convert_genotypes, open_genotypes
from plait.numerics.saddlepoint import log10_tail
from tests.gwas.conftest import Dosages, InMemory, as_dosages, draw_calls, draw_dosages

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)
FIELDS = ("beta", "se", "log10p", "n", "frequency")


def table(values, names="t"):
    values = np.asarray(values, dtype=float)
    if isinstance(names, str):
        names = [f"{names}{i}" for i in range(values.shape[1])]
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), tuple(names), values)


@pytest.fixture
def random():
    return np.random.default_rng(17)


@pytest.fixture
def study(random):
    """90 samples, 25 variants with missing dosages, 3 traits on 2 sets of samples."""
    dosages = draw_dosages(random, 25, 90, missing=0.08)
    dosages[7] = 0.02 * (random.random(90) < 0.5)  # hardly anything to see, but certain
    traits = random.normal(size=(90, 3)) + 0.5 * np.nan_to_num(dosages[3])[:, None]
    traits[5:17, 1] = np.nan
    return dosages, traits, random.normal(size=(90, 3))


@pytest.mark.parametrize("missing", ["mean", "drop"])
def test_linear_against_statsmodels(study, missing):
    dosages, traits, covariates = study
    source, c = Dosages(dosages), table(covariates, "c")
    options = {"missing_genotypes": missing, "variant_filter": ALL}
    found = scan(source, table(traits), c, precision="double", **options)
    single = scan(source, table(traits), c, **options)
    limit = 1e-4 * np.maximum(1, np.abs(found.t))
    assert (np.abs(single.t - found.t) <= limit).all()
    np.testing.assert_allclose(single.se, found.se, rtol=1e-5)
    np.testing.assert_array_equal(single.n, found.n)
    for j, dosage in enumerate(dosages.astype(float)):
        called = ~np.isnan(dosage)
        assert found.frequency[j] == pytest.approx(dosage[called].mean() / 2, rel=1e-12)
        for t in range(3):
            used = ~np.isnan(traits[:, t])
            g = np.where(called, dosage, dosage[used & called].mean())
            if missing == "drop":
                used &= called
            X = sm.add_constant(np.column_stack([covariates, g])[used])
            fit = sm.OLS(traits[used, t], X).fit()
            close = {"rel": 1e-10, "abs": 1e-10 * fit.bse[-1]}
            assert found.beta[j, t] == pytest.approx(fit.params[-1], **close)
            assert found.se[j, t] == pytest.approx(fit.bse[-1], rel=1e-10)
            log10p = (np.log(2) + stats.t.logsf(abs(fit.tvalues[-1]), fit.df_resid)) / np.log(10)
            assert found.log10p[j, t] == pytest.approx(log10p, rel=1e-9, abs=1e-9)
            assert found.n[j, t] == used.sum()


def test_single_precision_where_it_is_hard(random):
    """Dosages nearly explained by covariates, and traits nearly explained by a dosage."""
    dosages = draw_dosages(random, 20, 500)
    covariates = dosages[:3].T + 1e-2 * random.normal(size=(500, 3))
    traits = np.column_stack([dosages[5] + 1e-3 * random.normal(size=500), random.normal(size=500)])
    given = Dosages(dosages), table(traits), table(covariates, "c")
    single = scan(*given, variant_filter=ALL)
    double = scan(*given, precision="double", variant_filter=ALL)
    assert np.abs(double.t).max() > 5000
    assert (np.abs(single.t - double.t) <= 1e-4 * np.maximum(1, np.abs(double.t))).all()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("linear", {}),
        ("linear", {"missing_genotypes": "drop"}),
        ("linear", {"precision": "double"}),
        ("linear", {"precision": "double", "missing_genotypes": "drop"}),
        ("logistic", {}),
        ("logistic", {"precision": "double"}),
    ],
)
def test_whole_dosages_are_hard_calls(random, model, options):
    calls = draw_calls(random, 300, 203, missing=0.03)
    calls[150:250] = random.binomial(2, 0.03, (100, 203))  # some just as rare as the filter asks
    calls[20], calls[21], calls[22] = 0, 2, 1
    calls[23] = -1
    calls[24, 20:] = -1
    traits = random.normal(size=(203, 2))
    if model == "logistic":
        traits = (traits > 1.2).astype(float)
    traits[3:11, 1] = np.nan
    covariates = table(random.normal(size=(203, 2)), "c")
    rules = VariantFilter(min_minor_count=8, min_frequency=0.02)
    options = {"model": model, "variant_filter": rules} | options
    exact = options.get("precision") == "double"
    calls_found = scan(InMemory(calls), table(traits), covariates, **options)
    found = scan(Dosages(as_dosages(calls)), table(traits), covariates, **options)
    assert found.filtered == calls_found.filtered
    both = np.isfinite(found.beta)
    np.testing.assert_array_equal(both, np.isfinite(calls_found.beta))
    assert both.sum() > 250
    np.testing.assert_array_equal(found.n[both], calls_found.n[both])
    np.testing.assert_allclose(found.frequency, calls_found.frequency, rtol=1e-14)
    t, expected = (x.beta / x.se for x in (found, calls_found))
    np.testing.assert_allclose(t[both], expected[both], atol=1e-10 if exact else 1e-5)
    # In single precision the two are rounded apart: an effect near 0 is known to its error's scale.
    closest = 1e-12 if exact else 1e-5 * calls_found.se[both]
    off = np.abs(found.beta[both] - calls_found.beta[both])
    assert (off <= 1e-5 * np.abs(calls_found.beta[both]) + closest).all()


def test_cuts_threads_and_order_of_samples(random, monkeypatch):
    dosages = draw_dosages(random, 1100, 71, missing=0.02)
    quantities = table(random.normal(size=(71, 2)))
    cases = table(random.random((71, 2)) < 0.4)
    environment = table(random.normal(size=(71, 1)), ["heat"])
    source = Dosages(dosages)

    def everything(threads):
        rules = VariantFilter(min_info=0.3)
        options = {"threads": threads, "variant_filter": rules}
        linear = [
            scan(source, quantities, missing_genotypes=missing, **options)
            for missing in ("mean", "drop")
        ]
        logistic = scan(source, cases, model="logistic", **options)
        joint = scan_interaction(source, quantities, environment, robust=True, **options)
        arrays = [getattr(part, name) for part in (*linear, logistic) for name in FIELDS]
        return [*arrays, *(getattr(joint, name) for name in (*EFFECTS, "log10p_joint"))]

    base = everything(threads=1)
    assert all(np.isfinite(array).mean() > 0.9 for array in base)
    for size, threads in ((256, 2), (512, 1), (1024, 2)):
        monkeypatch.setattr(Dosages, "block_size", lambda self, size=size: size)
        for array, expected in zip(everything(threads), base, strict=True):
            np.testing.assert_array_equal(array, expected)
    order = random.permutation(71)
    turned = Dosages(dosages[:, order], [f"s{i}" for i in order])
    for missing in ("mean", "drop"):
        options = {"precision": "double", "missing_genotypes": missing}
        once, again = (scan(given, quantities, **options) for given in (source, turned))
        np.testing.assert_allclose(again.t, once.t, atol=1e-11)


def test_flipped_alleles(study):
    dosages, traits, covariates = study
    # Numbers of which 2 less them are float32, too.
    dosages = np.round(dosages * 1024) / np.float32(1024)
    flipped = 2 - dosages
    cases = table((np.nan_to_num(traits) > 0.5).astype(float))
    c = table(covariates, "c")
    for given, options in (
        (table(traits), {"precision": "double"}),
        (table(traits), {"precision": "double", "missing_genotypes": "drop"}),
        (cases, {"precision": "double", "model": "logistic"}),
    ):
        options["variant_filter"] = VariantFilter(None, None, min_info=0.01)
        base = scan(Dosages(dosages), given, c, **options)
        other = scan(Dosages(flipped), given, c, **options)
        assert base.filtered == other.filtered
        np.testing.assert_allclose(other.beta, -base.beta, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(other.se, base.se, rtol=1e-9)
        np.testing.assert_allclose(other.log10p, base.log10p, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(other.frequency, 1 - base.frequency, rtol=1e-12)


def test_logistic_against_statsmodels(random):
    """Score tests, without the saddlepoint."""
    dosages = draw_dosages(random, 30, 300, missing=0.03)
    covariates = random.normal(size=(300, 2))
    risk = -0.5 + covariates @ [0.5, -0.4] + 0.6 * np.nan_to_num(dosages[3])
    y = (random.random(300) < 1 / (1 + np.exp(-risk))).astype(float)
    designs = make_binary_designs(table(y[:, None]), table(covariates, "c"), np.arange(300))
    work = BinaryScan(Dosages(dosages), designs, 1, "double", ALL, saddlepoint_above=np.inf)
    found = work.run(slice(0, 30))
    fit = sm.GLM(y, sm.add_constant(covariates), family=sm.families.Binomial()).fit(tol=1e-14)
    for j, dosage in enumerate(dosages.astype(float)):
        g = np.where(np.isnan(dosage), np.nanmean(dosage), dosage)
        chi2 = float(np.squeeze(fit.score_test(exog_extra=g[:, None])[0]))
        assert (found.beta[j, 0] / found.se[j, 0]) ** 2 == pytest.approx(chi2, rel=1e-8, abs=1e-12)


def penalised_slope(g, y, offset):
    """Firth's logistic slope beside a constant, with an offset."""
    X = np.column_stack([np.ones(len(g)), g])
    found = np.zeros(2)
    for _ in range(500):
        m = 1 / (1 + np.exp(-offset - X @ found))
        w = m * (1 - m)
        inverse = np.linalg.inv((X.T * w) @ X)
        leverages = w * np.einsum("ia,ab,ib->i", X, inverse, X)
        step = inverse @ X.T @ (y - m + leverages * (0.5 - m))
        step /= max(1, 2 * np.abs(step).max())
        found += step
        if np.abs(step).max() < 1e-10:
            return found[1]
    raise AssertionError("no convergence")


@pytest.mark.parametrize("certain", [False, True])
def test_saddlepoint_is_that_of_the_score(random, certain):
    """Few cases and rare alleles; nobody, or almost everybody, certain to have no copy."""
    n = 900
    copies = np.where(random.random((40, n)) < 0.05, random.uniform(0.5, 2, (40, n)), 0.0)
    dosages = copies if certain else np.clip(copies + random.uniform(0, 0.02, (40, n)), 0, 2)
    dosages[::2] = 2 - dosages[::2]
    dosages = dosages.astype(np.float32)
    dosages[random.random(dosages.shape) < 0.01] = np.nan
    y = np.zeros(n)
    order = np.argsort(-np.nan_to_num(dosages[5]) - random.uniform(0, 1.2, n))
    y[order[:30]] = 1.0
    covariates = random.normal(size=(n, 2))
    found = scan(
        Dosages(dosages), table(y[:, None]), table(covariates, "c"), model="logistic",
        variant_filter=ALL,
    )  # fmt: skip
    X = sm.add_constant(covariates)
    mu = sm.GLM(y, X, family=sm.families.Binomial()).fit(tol=1e-14).mu
    w = mu * (1 - mu)
    far = 0
    for j, dosage in enumerate(dosages.astype(float)):
        g = np.where(np.isnan(dosage), np.nanmean(dosage), dosage)
        g = g - X @ np.linalg.solve((X * w[:, None]).T @ X, X.T @ (w * g))
        score, variance = g @ (y - mu), g @ (w * g)
        if abs(score) <= 2.001 * variance**0.5:
            assert found.beta[j, 0] == pytest.approx(score / variance, rel=2e-4, abs=1e-4)
            continue
        far += 1
        expected = penalised_slope(g, y, np.log(mu / (1 - mu)))
        assert found.beta[j, 0] == pytest.approx(expected, rel=0.02 if certain else 1e-3)
        # Those without a copy are followed together where they are most: as their normal limit.
        rel = 0.02 if certain else 1e-6
        assert found.log10p[j, 0] == pytest.approx(log10_tail(score, g, mu), rel=rel)
    assert far >= 3
    assert found.log10p[5, 0] < -6


@pytest.mark.parametrize("robust", [False, True])
def test_interactions_against_statsmodels(study, random, robust):
    dosages, traits, covariates = study
    e = random.normal(10, 2, 90)
    found = scan_interaction(
        Dosages(dosages), table(traits), table(e[:, None], ["heat"]), table(covariates, "c"),
        robust=robust, variant_filter=ALL,
    )  # fmt: skip
    for t in range(3):
        used = ~np.isnan(traits[:, t])
        for j, dosage in enumerate(dosages.astype(float)):
            g = np.where(np.isnan(dosage), np.nanmean(dosage[used]), dosage)
            X = np.column_stack([np.ones(90), covariates, e, g, g * e])[used]
            fit = sm.OLS(traits[used, t], X).fit()
            if robust:
                fit = fit.get_robustcov_results("HC3", use_t=True)
            for kind, k in (("main", 5), ("interaction", 6)):
                beta, se = (getattr(found, f"{name}_{kind}")[j, t] for name in ("beta", "se"))
                assert beta == pytest.approx(fit.params[k], rel=1e-7, abs=1e-9)
                assert se == pytest.approx(fit.bse[k], rel=1e-7)


def test_what_is_not_tested(random):
    dosages = draw_dosages(random, 9, 200)
    dosages[0] = 0.1  # the same for all, which is not a number of float64
    dosages[1] = 0.0
    dosages[2] = np.nan
    dosages[3, 50:] = np.nan
    dosages[4] = random.uniform(0, 0.05, 200)  # 5 copies
    dosages[5] = random.uniform(0.3, 0.5, 200)  # 80 copies, of which little is known
    covariates = np.column_stack([dosages[6], random.normal(size=200)])
    rules = VariantFilter(min_info=0.3)
    expected = {
        "call rate": 4, "monomorphic": 2, "minor allele count": 2, "imputation quality": 4,
        "collinearity with the covariates": 2,
    }  # fmt: skip
    given = Dosages(dosages), table(random.normal(size=(200, 2))), table(covariates, "c")
    found = scan(*given, variant_filter=rules)
    assert found.filtered == expected
    assert np.isnan(found.beta[:7]).all()
    assert np.isfinite(found.beta[7:]).all()
    found = scan(*given)
    assert np.isfinite(found.beta[5]).all()
    assert (
        found.filtered["collinearity with the covariates"] == 4
    )  # what is constant and what is c0
    cases = table(random.random((200, 1)) < 0.3)
    for precision in ("single", "double"):
        found = scan(given[0], cases, model="logistic", variant_filter=ALL, precision=precision)
        assert np.isnan(found.beta[:3]).all()
    with pytest.raises(OptionError, match=r"min_info is 1\.5"):
        VariantFilter(min_info=1.5)


@pytest.mark.parametrize("wrong", [2.1, -9.0, np.inf])
def test_dosages_out_of_range_are_named(random, wrong):
    dosages = draw_dosages(random, 700, 30)
    dosages[600, 8] = wrong
    samples = np.array([9, 8])
    with pytest.raises(InputError, match=rf"1:601:A:G: the dosage of sample 's8' is {wrong:g}"):
        scan(Dosages(dosages), table(random.normal(size=(30, 1))))
    with pytest.raises(InputError, match="sample 's8'"):
        read_block(Dosages(dosages), slice(600, 602), samples)
    dosages[600, 8] = 2.0005  # a sum of rounded probabilities
    scan(Dosages(dosages), table(random.normal(size=(30, 1))))


def write_vcf(path, dosages, names):
    """Dosages as DS, three decimals; the calls beside them are of no use."""
    header = (
        '##fileformat=VCFv4.2\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="">'
        '\n##FORMAT=<ID=DS,Number=A,Type=Float,Description="">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL'
        "\tFILTER\tINFO\tFORMAT\t"
    )
    lines = [header + "\t".join(names) + "\n"]
    for j, row in enumerate(dosages):
        cells = ["./.:." if np.isnan(value) else f"./.:{value:.3f}" for value in row]
        start = f"1\t{j + 1}\tv{j}\tA\tG\t.\t.\t.\tGT:DS\t"
        lines.append(start + "\t".join(cells) + "\n")
    path.write_text("".join(lines))


def run(command, folder):
    done = subprocess.run(
        command.split(), cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed here")
def test_every_format_against_plink2(random, tmp_path):
    """The same dosages from VCF, PGEN, BGEN, VCF-Zarr and a table, as PLINK 2 regresses on them."""
    n, m = 250, 120
    dosages = draw_dosages(random, m, n, missing=0.03)
    names = np.array([f"p{i}" for i in range(n)])
    write_vcf(tmp_path / "g.vcf", dosages, names)
    traits = random.normal(size=(n, 2)) + np.nan_to_num(dosages[:2]).T
    traits[5:20, 1] = np.nan
    covariates = random.normal(size=(n, 2))
    for name, values, columns in (
        ("pheno", traits, ["y1", "y2"]),
        ("covar", covariates, ["c1", "c2"]),
    ):
        frame = pl.DataFrame({"#IID": names} | dict(zip(columns, values.T, strict=True)))
        frame.fill_nan(None).write_csv(tmp_path / f"{name}.tsv", separator="\t", null_value="NA")
    run("plink2 --vcf g.vcf dosage=DS --make-pgen --out g --threads 1", tmp_path)
    run(
        "plink2 --pfile g --export bgen-1.2 bits=16 ref-first id-paste=iid --out g --threads 1",
        tmp_path,
    )
    run(
        "plink2 --pfile g --pheno pheno.tsv --covar covar.tsv --glm hide-covar omit-ref "
        "--out theirs --threads 1",
        tmp_path,
    )
    table_of_dosages = pl.DataFrame(
        {"IID": names} | {f"v{j}": np.round(row, 3) for j, row in enumerate(dosages)}
    )
    table_of_dosages.fill_nan(None).write_csv(tmp_path / "g.csv", null_value="NA")
    convert_genotypes(open_genotypes(tmp_path / "g.pgen"), tmp_path / "g.vcz")
    for name in ("g.pgen", "g.vcf", "g.bgen", "g.vcz", "g.csv"):
        with open_genotypes(tmp_path / name) as source:
            assert source.kind == "dosage"
            ours = scan(
                source,
                SampleTable(names, ("y1", "y2"), traits),
                SampleTable(names, ("c1", "c2"), covariates),
                missing_genotypes="drop",
                variant_filter=VariantFilter(None, None),
            )
        for t, trait in enumerate(("y1", "y2")):
            theirs = pl.read_csv(
                tmp_path / f"theirs.{trait}.glm.linear", separator="\t", null_values=["NA", "."]
            )
            assert theirs["ID"].to_list() == ours.id.tolist()
            # PLINK keeps dosages in steps of 1/16384 and prints six digits.
            digits = 2e-5 if name == "g.pgen" else 2e-4
            close = {"rtol": digits, "atol": digits / 10}
            np.testing.assert_allclose(ours.beta[:, t], theirs["BETA"].to_numpy(), **close)
            np.testing.assert_allclose(ours.se[:, t], theirs["SE"].to_numpy(), **close)
            p = 10 ** ours.log10p[:, t]
            np.testing.assert_allclose(p, theirs["P"].to_numpy(), rtol=1e-3)
            np.testing.assert_array_equal(ours.n[:, t], theirs["OBS_CT"].to_numpy())
