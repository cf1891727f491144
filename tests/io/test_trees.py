"""Tree sequences against their own genotype matrices, and against the VCF that tskit writes."""

import pickle
import sys

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.errors import DependencyError, FileFormatError, InputError, OptionError
from plait.io import convert_genotypes, open_genotypes

msprime = pytest.importorskip("msprime")
tskit = pytest.importorskip("tskit")


def simulated(n=40, seed=3, ploidy=2, **options):
    trees = msprime.sim_ancestry(
        n, ploidy=ploidy, sequence_length=20_000, recombination_rate=1e-7,
        population_size=2000, random_seed=seed,
    )  # fmt: skip
    return msprime.sim_mutations(trees, rate=options.get("rate", 2e-7), random_seed=seed)


@pytest.fixture
def place(tmp_path):
    simulated().dump(tmp_path / "a.trees")
    return tmp_path / "a.trees"


def test_genotypes_are_sums_over_the_genomes_of_individuals(place):
    """Of every allele at sites with several, in any order of reading."""
    trees = simulated(rate=3e-6)
    trees.dump(place)
    source = open_genotypes(place)
    assert source.kind == "hardcall" and source.samples.tolist()[:2] == ["tsk_0", "tsk_1"]
    expected, pos, alleles = [], [], []
    for variant in trees.variants():
        states = variant.alleles[1:]
        for number, state in enumerate(states, start=1):
            expected.append((variant.genotypes == number).reshape(-1, 2).sum(axis=1))
            pos.append(int(variant.site.position) + 1)
            alleles.append((variant.alleles[0], state))
    assert len(pos) > trees.num_sites > 100
    np.testing.assert_array_equal(source.read(dtype=np.int8), expected)
    assert source.variants.pos.tolist() == pos
    frame = source.variants.frame
    assert list(zip(frame["oa"], frame["ea"], strict=True)) == alleles
    assert set(frame["chrom"]) == {"1"}
    rows = np.random.default_rng(1).permutation(len(pos))[:50]
    some = np.array([3, 0, 7])
    found = source.read(rows, some)
    np.testing.assert_array_equal(found, np.array(expected)[rows][:, some])
    others = open_genotypes(place, count="oa", chromosome="7")
    np.testing.assert_array_equal(others.read(), 2 - np.array(expected))
    assert others.variants.frame["oa"].equals(frame["ea"].alias("oa"))
    assert others.variants.frame["chrom"][0] == "7"
    again = pickle.loads(pickle.dumps(others))
    np.testing.assert_array_equal(again.read(rows), 2 - np.array(expected)[rows])
    dropped = open_genotypes(place, multiallelic="drop")
    assert len(set(dropped.variants.pos.tolist())) == dropped.n_variants < trees.num_sites


def test_the_same_as_the_vcf_of_tskit(place, tmp_path):
    with (tmp_path / "a.vcf").open("w") as stream:
        tskit.load(place).write_vcf(stream, position_transform=lambda x: np.int64(x) + 1)
    vcf, source = open_genotypes(tmp_path / "a.vcf"), open_genotypes(place)
    np.testing.assert_array_equal(source.read(), vcf.read())
    assert source.samples.tolist() == vcf.samples.tolist()
    assert source.variants.keys.to_list() == vcf.variants.keys.to_list()
    convert_genotypes(source, tmp_path / "a.bed")
    np.testing.assert_array_equal(open_genotypes(tmp_path / "a.bed").read(), source.read())


def test_names_missing_genomes_and_haploids(place):
    tables = simulated(n=5, ploidy=1).dump_tables()
    tables.individuals.clear()
    tables.individuals.metadata_schema = tskit.MetadataSchema.permissive_json()
    for name in "abcde":
        tables.individuals.add_row(metadata={"name": name})
    flags = tables.nodes.flags
    flags[:] = np.where(np.arange(len(flags)) == 4, 0, flags)  # a genome that is no sample
    tables.nodes.flags = flags
    tables.sort()
    trees = tables.tree_sequence()
    trees.dump(place)
    source = open_genotypes(place)
    assert source.samples.tolist() == ["a", "b", "c", "d"]
    expected = [2 * (variant.genotypes == 1) for variant in trees.variants()]
    np.testing.assert_array_equal(source.read(dtype=np.int8), expected)
    # a genome without parents is missing at a site there
    tables = trees.dump_tables()
    tables.delete_intervals([[0, 10_000]], simplify=False)
    tables.sites.add_row(5.0, "A")
    tables.sort()
    tables.build_index()
    tables.compute_mutation_parents()
    tables.tree_sequence().dump(place)
    assert (open_genotypes(place).read(slice(0, 1), dtype=np.int8) == -1).all()


def test_what_cannot_be_read(place, tmp_path, monkeypatch):
    simulated(n=3, ploidy=3).dump(place)
    with pytest.raises(InputError, match="an individual has 3 genomes; plait takes one or two"):
        open_genotypes(place)
    tables = simulated(n=3).dump_tables()
    tables.individuals.clear()
    tables.nodes.individual = np.full(tables.nodes.num_rows, -1, np.int32)
    tables.tree_sequence().dump(place)
    with pytest.raises(InputError, match="has no individuals with sampled genomes"):
        open_genotypes(place)
    with pytest.raises(OptionError, match="hard calls only"):
        open_genotypes(place, dosage="dosage")
    place.write_bytes(place.read_bytes()[:50])
    with pytest.raises(FileFormatError, match="is not a tree sequence"):
        open_genotypes(place)
    (tmp_path / "b.tsz").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "tszip", None)
    with pytest.raises(DependencyError, match=r"tszip is required .* 'plait\[trees\]'"):
        open_genotypes(tmp_path / "b.tsz")
    monkeypatch.setitem(sys.modules, "tskit", None)
    with pytest.raises(DependencyError, match=r"pip install 'plait\[trees\]'"):
        open_genotypes(place)


def test_compressed(place, tmp_path):
    """The same variants and genotypes; what is no such file, or broken, is refused."""
    tszip = pytest.importorskip("tszip")
    packed = tmp_path / "b.tsz"
    tszip.compress(tskit.load(place), packed)
    source, expected = open_genotypes(packed), open_genotypes(place)
    assert source.variants.frame.equals(expected.variants.frame)
    np.testing.assert_array_equal(source.read(), expected.read())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(), expected.read())
    whole = packed.read_bytes()
    middle = len(whole) // 2
    broken = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"PK", whole[:middle], broken, place.read_bytes()):
        packed.write_bytes(content)
        with pytest.raises(
            FileFormatError, match=r"b\.tsz is not a tree sequence that tszip reads"
        ):
            open_genotypes(packed)


def test_a_scan_of_simulated_genomes(place, tmp_path, monkeypatch):
    """Known by its first bytes, whatever it is called."""
    monkeypatch.chdir(tmp_path)
    place.rename("simulated")
    source = open_genotypes("simulated")
    y = np.random.default_rng(1).normal(size=source.n_samples)
    pl.DataFrame({"IID": source.samples.tolist(), "y": y}).write_csv("y.csv")
    command = "gwas scan --geno simulated --pheno y.csv --min-mac 5 --out o --quiet"
    assert main(command.split()) == 0
    found = pl.read_parquet("o/associations.parquet")
    np.testing.assert_allclose(found["eaf"], source.read().mean(axis=1) / 2, atol=1e-12)
