"""What cannot be is refused before principal components, which take long, are computed."""

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.gwas import structure
from plait.io.plink import write_bed
from plait.simulate import cohort

N = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    people = cohort(n_samples=N, n_variants=300, n_causal=3, seed=3)
    write_bed(folder / "g.bed", people.blocks(), people.variants, people.samples)
    one = people.variants.chromosomes[0][1]
    calls = np.concatenate(list(people.blocks()))[one]
    write_bed(folder / "one.bed", iter([calls]), people.variants[one], people.samples)
    names = people.samples.tolist()
    height = people.traits.values[:, 0]
    case = (people.traits.values[:, 1] > 0).astype(int)
    traits = pl.DataFrame({"IID": names, "height": height, "weight": -height, "gout": case})
    traits.write_csv(folder / "y.csv")
    others = [f"other{k}" for k in range(N)]
    traits.with_columns(pl.Series("IID", others)).write_csv(folder / "others.csv")
    age = people.covariates.values[:, 0]
    place = [f"p{k % 3}" for k in range(N)]
    covariates = pl.DataFrame({"IID": names, "age": age, "place": place})
    covariates.write_csv(folder / "c.csv")
    covariates.with_columns(pl.Series("IID", others)).write_csv(folder / "other_c.csv")
    holes = pl.when(pl.int_range(N) == 4).then(None).otherwise(pl.col("age")).alias("age")
    covariates.with_columns(holes).write_csv(folder / "holes.csv")
    covariates.rename({"age": "PC2"}).write_csv(folder / "pc.csv")
    (folder / "about.yaml").write_text("genome_assembly: GRCh38\n")
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)

    def work(*_, **__):
        raise AssertionError("components are computed of what is refused")

    monkeypatch.setattr(structure, "_choose_variants", work)
    return tmp_path


G = "--geno g.bed --pheno y.csv"
REFUSED = (
    (f"scan {G} --loco", "--loco is for --model mixed; in the linear model there are no"),
    (f"scan {G} --model whole-genome --no-loco", "always leaves chromosomes out; --no-loco cannot"),
    (f"scan {G} --model mixed --missing drop", "the mixed model takes --missing mean only"),
    (f"scan {G} --model logistic --transform rank", "takes traits as they are, --transform none"),
    (f"scan {G} --model logistic", "'height' has 150 values"),
    ("scan --geno one.bed --pheno y.csv --model whole-genome", "all variants are on chromosome 1"),
    ("scan --geno g.bed --pheno others.csv", "have no sample in common"),
    (f"scan {G} --covar other_c.csv", "have no sample in common"),
    (f"scan {G} --covar holes.csv", "'age' is missing for 1 of 150"),
    (f"scan {G} --covar pc.csv", "have a column 'PC2' already, the name of a component"),
    (f"scan {G} --pcs 150", "--pcs is 150; of 150 samples there are 1 to 149 components"),
    (f"scan {G} --pcs -1", "--pcs is -1; of 150 samples"),
    (f"scan {G} --min-maf 0.7", "--min-maf is 0.7; give a number between 0 and 0.5"),
    (f"scan {G} --min-mac -2", "--min-mac is -2; it cannot be negative"),
    (f"scan {G} --min-call-rate 95", "--min-call-rate is 95"),
    (f"scan {G} --memory 8X", "--memory is '8X'; give an amount"),
    (f"scan {G} --format ssf --metadata about.yaml", "about.yaml"),
    (f"interaction {G} --covar c.csv --environment heat", "environment 'heat' is no covariate"),
    (f"interaction {G} --covar holes.csv --environment age", "'age' is missing for 1 of 150"),
    ("-to-mash --geno g.bed --pheno y.csv --traits height", "by two traits or more"),
    (f"-to-mash {G} --strong-p 3", "--strong-p is 3"),
    (f"-to-mash {G} --random-size 5", "--random-size is 5; give at least 100"),
    (f"-to-mash {G} --loco", "--loco is for --model mixed"),
    (f"-to-mash {G} --model logistic --missing drop", "takes --missing mean only"),
)


@pytest.mark.parametrize(("line", "text"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused_before_components(here, line, text, capsys):
    pcs = "" if "--pcs" in line else " --pcs 3"
    command = f"gwas{'' if line.startswith('-') else ' '}{line}{pcs} --out o --quiet"
    assert main(command.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert text in told
    assert not (here / "o").exists()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "--covar other_c.csv",
            "genotypes and covariates have no sample in common: genotypes begin",
        ),
        ("--covar pc.csv", "have a column 'PC2' already"),
        ("--r2 0", "--r2 is 0.0; give a number above 0, at most 1"),
        ("-k 0", "--components is 0; of 150 samples"),
        ("--memory 1", "--memory is '1' (1 byte); give an amount"),
    ],
)
def test_components_that_cannot_be(here, line, text, capsys):
    assert main(f"gwas pca --geno g.bed {line} --out p.csv --quiet".split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert text in told
    assert not (here / "p.csv").exists()
