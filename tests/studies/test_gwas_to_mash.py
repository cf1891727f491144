"""The road from genotypes to shared effects: what it finds, what it keeps, what it refuses."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from plait import mash
from plait.cli import study
from plait.cli.main import main
from plait.data.phenotypes import SampleTable
from plait.errors import InputError, InputTypeError, ModelWarning, OptionError
from plait.gwas import AssociationResult, scan
from plait.io import (
    open_genotypes,
    read_covariances,
    read_covariates,
    read_effects,
    read_phenotypes,
)
from plait.io.plink import write_bed
from plait.simulate import cohort
from plait.studies import StudySettings, gwas_to_mash
from plait.studies.gwas_to_mash import _Road, _Sets, different_units
from plait.studies.trait_checks import trait_doubts

STAGES = ["scan", "select", "learn", "fit", "apply", "tabulate", "draw", "report"]
pytestmark = pytest.mark.filterwarnings("ignore:only .* effects for the principal components")


@pytest.fixture(scope="module")
def simulated():
    return cohort(n_samples=600, n_variants=3000, n_causal=12, seed=3)


@pytest.fixture(scope="module")
def files(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    write_bed(folder / "g.bed", simulated.blocks(), simulated.variants, simulated.samples)
    for name, table in (("traits", simulated.traits), ("covariates", simulated.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        frame = pl.DataFrame({"IID": table.samples.tolist()} | columns)
        frame.write_csv(folder / f"{name}.csv")
    return folder


@pytest.fixture(scope="module")
def road(files):
    told = []
    result = gwas_to_mash(
        open_genotypes(files / "g.bed"),
        read_phenotypes(files / "traits.csv"),
        read_covariates(files / "covariates.csv"),
        files / "study",
        tell=lambda name, what, seconds: told.append((name, seconds)),
    )
    assert [name for name, _ in told] == STAGES
    assert all(seconds is not None for _, seconds in told)
    return result


def test_the_cohort_is_as_described(simulated):
    """Effects by linkage are what regressions on genotypes without noise find."""
    assert simulated.calls.shape == (3000, 600)
    assert len(simulated.variants.chromosomes) == 5
    frequency = simulated.calls.mean(axis=1) / 2
    assert np.minimum(frequency, 1 - frequency).min() >= 0.01
    again = cohort(n_samples=600, n_variants=3000, n_causal=12, seed=3)
    np.testing.assert_array_equal(again.calls, simulated.calls)
    np.testing.assert_array_equal(again.traits.values, simulated.traits.values)
    marginal = simulated.marginal_effects()
    _, run = simulated.variants.chromosomes[0]
    inside = simulated.causal < run.stop
    genetic = simulated.calls[simulated.causal[inside]].T @ simulated.truth[inside]
    for j in (0, 100, 599):
        slope = np.polyfit(simulated.calls[j].astype(float), genetic[:, 0], 1)[0]
        assert marginal[j, 0] == pytest.approx(slope, abs=1e-10)
    assert (marginal[simulated.variants.chromosomes[-1][1]] == 0).all()


def test_what_is_found(simulated, road, files):
    """Signs are right, and the traits that share their genetics are seen to share."""
    lfsr, mean = np.asarray(road.lfsr[:]), np.asarray(road.posterior_mean[:])
    scanned = AssociationResult.load(files / "study")
    marginal = simulated.marginal_effects()[np.isfinite(scanned.se).any(axis=1)]
    called = lfsr < 0.05
    assert called.sum() > 100
    wrong = called & (np.sign(mean) != np.sign(marginal))
    assert wrong.sum() <= 0.05 * called.sum()
    sharing = mash.get_pairwise_sharing(road)
    assert sharing[0, 1] > sharing[0, 4] + 0.3
    V = road.fitted_g.V_hint
    assert 0.1 < V[0, 4] < 0.6


def test_no_learned_pattern_is_of_lower_rank(road):
    """Rank 1 would make effects of one trait small certain ones on the others."""
    learned = {name: U for name, U in road.fitted_g.Ulist.items() if name.startswith("ED")}
    assert learned
    for U in learned.values():
        assert np.linalg.eigvalsh(U)[0] >= 0.05 / 1.05 * np.trace(U) / len(U) * (1 - 1e-9)


def test_a_study_learns_as_the_guide_does(road, files):
    """The recipe of docs/mash.md, from the signals and effects of the study: the same patterns."""
    stages = files / "study" / "stages"
    guide = (Path(__file__).parents[2] / "docs/mash.md").read_text(encoding="utf-8")
    recipe = re.search(r"# 3\. Patterns.*?\n(.*?)U_c = ", guide, flags=re.DOTALL)[1]
    recipe = recipe.replace("npc=3", "npc=5")
    effects = read_effects(stages / "effects.zarr")
    data = mash.mash_set_data(
        effects.bhat, effects.shat, alpha=1, V=effects.V, missing="exact",
        condition_names=effects.contexts,
    )  # fmt: skip
    with np.load(stages / "sets.npz") as sets:
        known = {"mash": mash, "data": data, "strong": sets["strong"]}
    exec(compile(recipe, "docs/mash.md", "exec"), known)
    patterns = read_covariances(stages / "patterns.npz")
    learned = {name: U for name, U in patterns.items() if name.startswith("ED")}
    assert list(learned) == list(known["U_ed"])
    for name, U in learned.items():
        np.testing.assert_allclose(U, known["U_ed"][name], rtol=1e-9)


def test_what_stands_in_the_folder(road, files):
    """What a person opens at the top, everything else below."""
    folder = files / "study"
    assert sorted(path.name for path in folder.iterdir()) == [
        "associations.parquet", "associations.zarr", "figures", "report.html", "result.zarr",
        "significant.csv", "stages",
    ]  # fmt: skip
    assert {path.name for path in (folder / "figures").iterdir()} == {"manhattan.png", "qq.png"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("The scan", 'data-figure="manhattan"', 'data-figure="qq"', "Converged"):
        assert words in page


def test_markers_keep_their_names(simulated, road, files):
    """One name for a variant in effects, results, the table of the significant, and the scan."""
    scanned = AssociationResult.open(files / "study")
    tested = np.isfinite(np.asarray(scanned.se)).any(axis=1)
    ids = np.array(simulated.variants.frame["id"].to_list())
    assert len(set(ids)) == len(ids)
    names = np.asarray(road.effect_names[:]).astype(str)
    np.testing.assert_array_equal(names, ids[tested])
    table = pl.read_csv(files / "study" / "significant.csv", schema_overrides={"chrom": pl.String})
    assert table.columns == [
        "effect", "chrom", "pos", "oa", "ea", "condition", "posterior_mean", "posterior_sd", "lfsr"
    ]  # fmt: skip
    lfsr = np.asarray(road.lfsr[:])
    assert table.height == (lfsr < 0.05).sum() > 100
    assert table["lfsr"].is_sorted()
    frame = simulated.variants.frame.select("id", "chrom", "pos", "oa", "ea")
    joined = table.join(frame, left_on="effect", right_on="id", how="left")
    for name in ("chrom", "pos", "oa", "ea"):
        assert joined[name].equals(joined[f"{name}_right"], check_names=False)
    best = table.row(0, named=True)
    row, column = np.unravel_index(np.argmin(lfsr), lfsr.shape)
    assert best["effect"] == names[row]
    assert best["condition"] == road.condition_names[column]


def test_stages_are_kept(files, road):
    def run(**changed):
        told = []
        gwas_to_mash(
            open_genotypes(files / "g.bed"),
            read_phenotypes(files / "traits.csv"),
            read_covariates(files / "covariates.csv"),
            files / "study",
            StudySettings(**changed),
            tell=lambda name, what, seconds: told.append(name if seconds is not None else None),
        )
        return [name for name in told if name is not None]

    assert run() == []
    before = np.asarray(road.lfsr[:])
    (files / "study" / "stages" / "prior.npz").unlink()
    assert run()[0] == "fit"
    np.testing.assert_array_equal(
        np.asarray(mash.MashResult.open(files / "study" / "result.zarr").lfsr[:]), before
    )
    assert run(random_size=200) == STAGES[1:]
    assert run() == STAGES[1:]
    (files / "study" / "stages" / "stages.json").write_text("{ damaged")
    assert run()[0] == "scan"


def test_other_alleles_and_ids_are_another_study(files, tmp_path):
    """Signs and names are those of the genotypes as they are now, not of those scanned before."""
    for name in ("g.bed", "g.fam"):
        (tmp_path / name).symlink_to(files / name)
    columns = [line.split("\t") for line in (files / "g.bim").read_text().splitlines()]

    def run():
        told = []
        gwas_to_mash(
            tmp_path / "g.bed", files / "traits.csv", None, tmp_path / "study", with_report=False,
            with_figures=False, tell=lambda name, what, seconds: told.append((name, seconds)),
        )  # fmt: skip
        assert all(seconds is not None for _, seconds in told)
        return pl.read_parquet(tmp_path / "study" / "associations.parquet")

    (tmp_path / "g.bim").symlink_to(files / "g.bim")
    first = run()
    (tmp_path / "g.bim").unlink()
    rows = ["\t".join([a, f"new{b}", c, d, f, e]) for a, b, c, d, e, f in columns]
    (tmp_path / "g.bim").write_text("\n".join(rows) + "\n")
    second = run()
    assert second["ea"].equals(first["oa"]) and second["oa"].equals(first["ea"])
    assert second["id"].to_list() == [f"new{name}" for name in first["id"]]


def test_paths_and_frames(files, road, tmp_path):
    """The same study, of the same inputs, whichever way they are given."""
    frame = pl.read_csv(files / "traits.csv")
    found = gwas_to_mash(
        files / "g.bed", frame, str(files / "covariates.csv"), tmp_path / "study",
        with_report=False, with_figures=False,
    )  # fmt: skip
    np.testing.assert_array_equal(found.lfsr[:], road.lfsr[:])
    with pytest.raises(InputTypeError, match="the traits are of the type list"):
        gwas_to_mash(files / "g.bed", [1.0], None, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_one_trait_is_refused(files, simulated):
    one = SampleTable(simulated.samples, ("y",), simulated.traits.values[:, :1])
    with pytest.raises(OptionError, match="two traits or more"):
        gwas_to_mash(open_genotypes(files / "g.bed"), one, None, files / "never")
    with pytest.raises(OptionError, match="strong_p"):
        StudySettings(strong_p=2)
    with pytest.raises(OptionError, match="random_size"):
        StudySettings(random_size=5)


def test_the_commands(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    tables = "--geno g.bed --pheno traits.csv --covar covariates.csv"
    assert main(f"gwas scan {tables} --traits trait1,trait4 --out scanned".split()) == 0
    said = capsys.readouterr().out
    assert "3,000 variants x 2 traits\n" in said
    found = pl.read_parquet("scanned/associations.parquet")
    direct = scan(
        open_genotypes("g.bed"), read_phenotypes("traits.csv", ["trait1", "trait4"]),
        read_covariates("covariates.csv"),
    )  # fmt: skip
    np.testing.assert_array_equal(found["beta.trait4"].to_numpy(), direct.beta[:, 1])
    about = json.loads((files / "scanned" / "run.json").read_text())
    assert about["counts"]["n_used"] == 600
    assert (files / "scanned" / "manhattan.png").exists()
    assert main(f"gwas scan {tables} --out scanned".split()) == 2
    assert "exists" in capsys.readouterr().err
    road = f"gwas-to-mash {tables} --out by_hand --random-size 500"
    assert main(road.split()) == 0
    said, told = capsys.readouterr()
    assert "written: by_hand/report.html · by_hand/significant.csv" in said
    # Every stage has one line, and no other progress is told.
    assert all(line.startswith("plait: warning") for line in told.splitlines())
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[: len(STAGES)]] == STAGES
    assert "nan" not in said
    assert main(road.split()) == 0
    said = capsys.readouterr().out
    assert "scan     3,000 variants x 5 traits" in said
    assert said.count("kept") == len(STAGES)
    assert main(f"gwas scan {tables} --traits height --out other".split()) == 2
    assert "there is no column 'height'" in capsys.readouterr().err


def test_an_association_result_is_saved_and_loaded(files, tmp_path):
    found = scan(open_genotypes(files / "g.bed"), read_phenotypes(files / "traits.csv"))
    found.save(tmp_path / "a.zarr")
    again = AssociationResult.load(tmp_path / "a.zarr")
    for name in ("beta", "se", "log10p", "n", "V0", "chrom", "pos", "id"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.traits == found.traits
    assert again.filtered == found.filtered
    assert again.summary() == found.summary()


def test_nothing_to_find(files, monkeypatch, capsys):
    """Traits of noise: a table without rows, a page, and no sharing that is not a number."""
    monkeypatch.chdir(files)
    samples = read_phenotypes("traits.csv").samples.tolist()
    noise = np.random.default_rng(5).normal(size=(len(samples), 2))
    columns = {"IID": samples, "a": noise[:, 0], "b": noise[:, 1]}
    pl.DataFrame(columns).write_csv("noise.csv")
    command = "gwas-to-mash --geno g.bed --pheno noise.csv --out nothing"
    assert main(command.split()) == 0
    said, warned = capsys.readouterr()
    (doubt,) = [line for line in warned.splitlines() if "no patterns were learned" in line]
    assert re.search(r"learned: \d signals? ha\w+ p < 0.0001 in some trait, and more than 2", doubt)
    assert doubt.endswith("More samples help; a larger --strong-p takes weaker signals.")
    assert "sharing (same sign, within a factor of 2): no effect is significant" in said
    assert "nan" not in said
    assert pl.read_csv("nothing/significant.csv").height == 0
    page = (files / "nothing" / "report.html").read_text(encoding="utf-8")
    assert "Scan not inflated" in page
    titles = re.findall(r"<summary>(.*?)</summary>\s*<p>(.*?)</p>", page, re.S)
    assert dict(titles)["No patterns learned"].startswith("No patterns were learned")
    assert main(command.split()) == 0
    said, warned = capsys.readouterr()
    assert said.count("kept") == len(STAGES) and doubt in warned.splitlines()


def sets_of(n_strong, chance=0.0):
    return _Sets(np.arange(n_strong), np.arange(100), chance)


def test_signals_that_chance_gives_teach_nothing(files, tmp_path):
    """Of many traits of noise some are always strong: more than there are traits, even."""
    samples = read_phenotypes(files / "traits.csv").samples
    noise = np.random.default_rng(7).normal(size=(len(samples), 3))
    traits = SampleTable(samples, ("a", "b", "c"), noise)
    weak = {"settings": StudySettings(strong_p=0.05), "with_report": False, "with_figures": False}
    with pytest.warns(ModelWarning, match="no patterns were learned") as told:
        result = gwas_to_mash(files / "g.bed", traits, None, tmp_path / "noise", **weak)
    assert not [name for name in result.fitted_g.Ulist if name.startswith("ED_")]
    with np.load(tmp_path / "noise/stages/sets.npz") as sets:
        signals, chance = len(sets["strong"]), float(sets["chance"])
    logs = AssociationResult.open(tmp_path / "noise").log10p[:]
    expected = 0.05 * np.isfinite(logs).sum() / (logs <= np.log10(0.05)).sum()
    assert chance == pytest.approx(min(expected, 1.0)) and chance > 0.7 and signals > 10
    (doubt,) = [str(w.message) for w in told if "no patterns" in str(w.message)]
    assert f"{signals} signals have p < 0.05 in some trait, of which chance alone gives" in doubt
    by_chance = round(signals * chance)
    assert f"about {by_chance}, and of others more than {by_chance} are needed." in doubt
    road = _Road(open_genotypes(files / "g.bed"), traits, None, tmp_path, StudySettings(), {})
    assert [road.n_learned(sets_of(8, c)) for c in (0.0, 0.4, 0.5, 0.7)] == [3, 3, 0, 0]


def test_too_few_signals_to_learn_from(files, tmp_path):
    """Canonical patterns only, and a warning; a threshold that takes more signals learns some."""
    traits = read_phenotypes(files / "traits.csv")
    noise = np.random.default_rng(6).normal(size=(len(traits.samples), 3))
    few = SampleTable(traits.samples, ("a", "b", "c"), noise)
    quick = {"with_report": False, "with_figures": False}
    with pytest.warns(ModelWarning, match="no patterns were learned") as told:
        result = gwas_to_mash(files / "g.bed", few, None, tmp_path / "few", **quick)
    assert not [name for name in result.fitted_g.Ulist if name.startswith("ED_")]
    is_null = result.fitted_g.pi[0] > 0.999
    assert any("weight is on no effect in any trait" in str(w.message) for w in told) == is_null
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        road = _Road(open_genotypes(files / "g.bed"), few, None, tmp_path, StudySettings(), {})
        assert [road.n_learned(sets_of(n)) for n in (0, 3, 4, 50)] == [0, 0, 3, 3]
        four, many = (road.doubts(sets_of(n), result.fitted_g) for n in (4, 60))
        (title,) = set(four) - set(many)
    assert title == "Patterns learned from few signals"
    said = four[title]
    assert said.startswith("only 4 effects for the principal components of 3 conditions; 60 or mor")


def test_sharing_is_said_where_there_is_some(road):
    from dataclasses import replace

    lines = study.sharing_lines(road)
    assert lines[0] == "sharing (same sign, within a factor of 2):"
    assert lines[1].split() == ["trait1", "1.00", *lines[1].split()[2:]]
    lfsr = np.asarray(road.lfsr[:]).copy()
    lfsr[:, :2] = 1.0
    some = study.sharing_lines(replace(road, lfsr=lfsr))
    assert some[1].split()[:3] == ["trait1", "-", "-"]
    assert some[-1] == "  -: no effect is significant in either trait"


def test_traits_that_tell_one_another_are_refused_before_the_scan(files, tmp_path):
    traits = read_phenotypes(files / "traits.csv")
    age = read_covariates(files / "covariates.csv").values[:, 0]
    total = traits.values[:, 0] - traits.values[:, 1] + 3 * age  # covariates take age out
    values = np.column_stack([traits.values, total])
    names = (*traits.names, "total")
    inputs = open_genotypes(files / "g.bed"), SampleTable(traits.samples, names, values)
    said = f"traits '{names[0]}', '{names[1]}', 'total' tell one another"
    with pytest.raises(InputError, match=said):
        gwas_to_mash(*inputs, read_covariates(files / "covariates.csv"), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_doubts_about_traits(files):
    """A trait that nobody has enough of has no test; one measured twice is nearly told."""
    traits = read_phenotypes(files / "traits.csv")
    first = traits.values[:, 0]
    rare = np.where(np.arange(len(first)) < 9, first, np.nan)
    noise = np.random.default_rng(1).normal(scale=0.05 * first.std(), size=len(first))
    values = np.column_stack([traits.values, rare, first + noise])
    names = (*traits.names, "rare", "again")
    scanned = scan(open_genotypes(files / "g.bed"), SampleTable(traits.samples, names, values))
    doubts = trait_doubts(scanned)
    assert list(doubts) == ["Traits without tests", "Traits that nearly tell one another"]
    assert "for 'rare':" in doubts["Traits without tests"]
    assert f"'{names[0]}', 'again'" in doubts["Traits that nearly tell one another"]
    assert trait_doubts(scan(open_genotypes(files / "g.bed"), traits)) == {}


def test_traits_in_different_units_are_said(files, simulated, monkeypatch, capsys):
    """On the screen and on the page; ranks, and traits on scales of 1 and 1.9, have nothing."""
    monkeypatch.chdir(files)
    names, values = ("a", "b", "c"), simulated.traits.values[:, :3].copy()
    values /= values.std(axis=0)
    scaled = values * [1.0, 10.0, 0.5]
    frame = pl.DataFrame(
        {"IID": simulated.samples.tolist()} | dict(zip(names, scaled.T, strict=True))
    )
    frame.write_csv("units.csv")
    command = "gwas-to-mash --geno g.bed --pheno units.csv --out units"
    assert main(command.split()) == 0
    (doubt,) = [line for line in capsys.readouterr().err.splitlines() if "units" in line]
    assert "the standard deviation of 'b' is 20 times that of 'c'" in doubt
    assert doubt.endswith("or give rank as --transform.")
    page = (files / "units" / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<summary>(.*?)</summary>\s*<p>(.*?)</p>", page, re.S)
    assert dict(titles)["Traits in different units"].startswith("Traits are in different units")
    assert "of the signs of their effects (same sign; sizes are in different units)" in page
    assert main([*command.split()[:-1], "ranked", "--transform", "rank"]) == 0
    assert "units" not in capsys.readouterr().err
    assert "different units" not in (files / "ranked/report.html").read_text(encoding="utf-8")

    def said(*scales, **options):
        traits = SampleTable(simulated.samples, names, values * scales)
        return different_units(scan(open_genotypes("g.bed"), traits, **options))

    assert said(1, 1.9, 1.5) == {}
    assert list(said(1, 2.2, 1.5)) == ["Traits in different units"]
    cases = (values[:, :2] > [1.3, 0.0]).astype(float)
    sick = SampleTable(simulated.samples, ("few", "half"), cases)
    assert different_units(scan(open_genotypes("g.bed"), sick, model="logistic")) == {}
