"""A locus: which variants, whose linkage, and what is drawn of it."""

import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest

from plait import gwas, plot
from plait.cli import gwas_region
from plait.cli.main import main
from plait.data.p_values import p_value_text
from plait.data.summary_statistics import SummaryStatistics
from plait.data.variants import VariantTable
from plait.errors import LabelError, NotAvailableError, OptionError, ShapeError
from plait.gwas.linkage import r2_with
from plait.gwas.regional import locus_around
from plait.gwas.results import AssociationResult
from plait.io.plink import write_bed
from plait.plot.regional import R2_COLOURS
from tests.gwas.conftest import InMemory, draw_calls

mpl.use("Agg")
POS = np.array([100, 400, 450, 500, 900, 2000, 500, 30])
CHROM = ["1"] * 6 + ["2"] * 2


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def panel():
    """Eight variants of 400 samples; those on chromosome 1 are linked, the third does not vary."""
    random = np.random.default_rng(5)
    calls = draw_calls(random, 8, 400)
    for k in (0, 1, 4):
        copied = random.random(400) < 0.7
        calls[k] = np.where(copied, calls[3], calls[k])
    calls[2] = 2
    calls[random.random(calls.shape) < 0.02] = -1
    calls[2] = 2
    source = InMemory(calls)
    source._variants = VariantTable.of(CHROM, POS, list("CACACACA"), list("GTGTGTGT"), names())
    return source


def names():
    return [f"rs{k}" for k in range(7)] + ["."]


def result(log10p, traits=("a", "b")):
    values = np.asarray(log10p, dtype=float)
    return AssociationResult(
        beta=values * 0,
        se=values * 0 + 1,
        log10p=values,
        n=np.full(values.shape, 400),
        frequency=np.full(len(values), 0.3),
        chrom=np.array(CHROM),
        pos=POS,
        id=np.array(names()),
        oa=np.array(list("CACACACA")),
        ea=np.array(list("GTGTGTGT")),
        traits=tuple(traits),
        V0=np.eye(len(traits)),
        filtered={},
    )


@pytest.fixture(scope="module")
def scanned():
    return result(
        np.column_stack([[-1, -2, -3, -9, -4, -5, -1, -1], [-1, np.nan, -1, -2, -1, -1, -1, -20]])
    )


def by_numpy(source, lead):
    values = source.read(dtype=np.float64)
    values = np.where(np.isnan(values), np.nanmean(values, axis=1, keepdims=True), values)
    with np.errstate(invalid="ignore"):
        return np.corrcoef(values)[lead] ** 2


def test_squared_correlations(panel):
    expected = by_numpy(panel, 3)
    rows = np.array([5, 0, 2, 3, 4])
    found = r2_with(panel, 3, rows)
    np.testing.assert_allclose(found, expected[rows], atol=1e-6)
    assert np.isnan(found[2])  # it does not vary
    assert np.isnan(r2_with(panel, 2, rows)).all()
    some = np.arange(50, 300)
    part = InMemory(panel.calls[:, some])
    np.testing.assert_allclose(r2_with(panel, 3, rows, some), by_numpy(part, 3)[rows], atol=1e-6)


def test_which_variants(panel, scanned):
    locus = locus_around(scanned, panel, "rs3", 0.4)
    assert locus.variants["id"].to_list() == ["rs0", "rs1", "rs2", "rs3", "rs4"]
    assert (locus.lead, locus.lead_name, locus.chrom) == (3, "rs3", "1")
    assert locus.traits == ("a",)
    assert locus.window == (100, 900)
    np.testing.assert_array_equal(locus.log10p[:, 0], [-1, -2, -3, -9, -4])
    np.testing.assert_allclose(locus.r2[[0, 1, 4]], by_numpy(panel, 3)[[0, 1, 4]], atol=1e-6)
    assert locus.r2[3] == 1 and np.isnan(locus.r2[2])
    # Nothing is drawn beyond the chromosome, and as far as asked within it.
    assert locus_around(scanned, panel, "rs4", 1.0).window == (100, 1900)
    # The end of the chromosome, and a variant that is alone.
    assert locus_around(scanned, panel, "rs5", 0.5).variants["id"].to_list() == ["rs5"]
    assert locus_around(scanned, panel, "rs0", 0.35).window == (100, 450)


@pytest.mark.parametrize(
    ("step", "window_kb", "n"),
    [
        (100, 500, 1000),
        (10_000, 500, 101),
        (21_000, 1000, 95),
        (39_000, 1000, 51),
        (41_000, 2000, 97),
        (100_000, 5000, 101),
        (300_000, 5000, 33),
    ],
)
def test_a_sparse_map_is_drawn_further(step, window_kb, n):
    """Variants evenly apart: the first window of 50 of them, counted by hand."""
    pos = 1 + step * np.arange(1000)
    frame = {"chrom": ["1"] * 1000 + ["2"] * 1000, "pos": [*pos, *pos], "id": [None] * 2000}
    frame |= {"ea": ["A"] * 2000, "oa": ["C"] * 2000, "z": [1.0] * 500 + [9.0] + [1.0] * 1499}
    table = SummaryStatistics.from_frame(pl.DataFrame(frame, schema_overrides={"id": pl.String}))
    locus = locus_around(table)
    assert (locus.window_kb, locus.variants.height) == (window_kb, n)
    assert locus.variants["chrom"].unique().to_list() == ["1"]
    # What is asked for is drawn, however few they are.
    asked = locus_around(table, window_kb=500)
    assert asked.window_kb == 500 and asked.variants.height <= n


def test_no_window_is_wider_than_its_variants_reach():
    frame = {"chrom": ["1"] * 4, "pos": [1, 400_000, 1_300_000, 1_400_001]}
    frame |= {"ea": ["A"] * 4, "oa": ["C"] * 4, "z": [9.0, 1.0, 1.0, 1.0]}
    for few, window_kb in ((4, 2000), (2, 500), (1, 500)):
        table = SummaryStatistics.from_frame(pl.DataFrame(frame).head(few))
        locus = locus_around(table)
        assert (locus.window_kb, locus.variants.height) == (window_kb, few)


def test_the_surest_variant_and_traits(panel, scanned):
    locus = locus_around(scanned, panel)
    assert (locus.lead_name, locus.traits) == ("2:30:A:T", ("b",))
    assert locus_around(scanned, panel, traits="a").lead_name == "rs3"
    both = locus_around(scanned, panel, "2:30:A:T", traits=["b", "a"])
    np.testing.assert_array_equal(both.log10p[both.lead], [-20, -1])
    # At a variant, the surest trait there.
    assert locus_around(scanned, panel, "rs1").traits == ("a",)


def test_linkage_of_a_panel_with_other_alleles_and_names(panel, scanned):
    order = np.array([6, 4, 3, 0])
    calls = np.where(panel.calls[order] < 0, -1, 2 - panel.calls[order])
    other = InMemory(calls)
    chrom = [f"chr{CHROM[k]}" for k in order]
    alleles = [list("GT"[k % 2] for k in order), list("CA"[k % 2] for k in order)]
    other._variants = VariantTable.of(chrom, POS[order], *alleles, ["x"] * 4)
    found, own = (locus_around(scanned, g, "rs3", 0.4).r2 for g in (other, panel))
    np.testing.assert_allclose(found[[0, 3, 4]], own[[0, 3, 4]], atol=1e-6)
    assert np.isnan(found[[1, 2]]).all()
    assert np.isnan(locus_around(scanned, None, "rs3").r2).all()
    with pytest.raises(LabelError, match="genotypes lack the lead variant 1:400:A:T"):
        locus_around(scanned, other, "rs1")
    other._variants = VariantTable.of(["NC_1"] * 4, POS[order], *alleles, ["x"] * 4)
    with pytest.raises(LabelError, match=r"no chromosome '1', .* they have 'NC_1'. Name the"):
        locus_around(scanned, other, "rs1")


def test_summary_statistics(panel, scanned):
    table = scanned.to_summary_statistics("a")
    locus, same = (locus_around(r, panel, "rs3", 0.4, "a") for r in (table, scanned))
    np.testing.assert_array_equal(locus.log10p, same.log10p)
    np.testing.assert_array_equal(locus.r2, same.r2)
    bare = pl.DataFrame({"id": ["rs1", "rs2"], "z": [1.0, 2.0]})
    with pytest.raises(NotAvailableError, match="no variant was tested"):
        locus_around(SummaryStatistics.from_frame(bare), panel)


def test_errors(panel, scanned):
    with pytest.raises(LabelError, match=r"there is no variant 'rs9'; give its id .* as 'rs0'"):
        locus_around(scanned, panel, "rs9")
    with pytest.raises(LabelError, match="no variant '1:100:G:C'"):
        locus_around(scanned, panel, "1:100:G:C")
    with pytest.raises(LabelError, match="there is no trait 'c'; there are a, b"):
        locus_around(scanned, panel, traits=["a", "c"])
    with pytest.raises(NotAvailableError, match="'rs1' was not tested for b: it has no p-value"):
        locus_around(scanned, panel, "rs1", traits="b")
    with pytest.raises(NotAvailableError, match="no variant was tested"):
        locus_around(result(np.full((8, 1), np.nan), ["a"]), panel)
    with pytest.raises(OptionError, match="window_kb"):
        locus_around(scanned, panel, window_kb=0)
    twice = result(scanned.log10p)
    object.__setattr__(twice, "id", np.array(["rs0"] * 8))
    with pytest.raises(LabelError, match="8 variants are called 'rs0': say which, as 1:100:C:G"):
        locus_around(twice, panel, "rs0")


def test_the_command_says_where_it_draws_further(tmp_path, monkeypatch, capsys):
    from plait.io import write_summary_statistics

    monkeypatch.chdir(tmp_path)
    pos = 1 + 100_000 * np.arange(80)
    frame = {"chrom": ["1"] * 80, "pos": pos, "ea": ["A"] * 80, "oa": ["C"] * 80}
    frame |= {"beta": [1.0] * 40 + [5.0] + [1.0] * 39, "se": [1.0] * 80}
    write_summary_statistics(SummaryStatistics.from_frame(pl.DataFrame(frame)), "a.tsv")
    for words, said, window_kb in (
        ("", "80 variants within 5000 kb, as there are 11 within 500 kb (--window-kb)\n", 5000),
        ("--window-kb 2000", "41 variants within 2000 kb\n", 2000),
        ("--window-kb 5000", "80 variants within 5000 kb\n", 5000),
    ):
        command = f"gwas region a.tsv {words} --out a.png --overwrite"
        assert main(command.split()) == 0
        assert said in capsys.readouterr().out
        assert json.loads(Path("a.png.run.json").read_text())["window_kb"] == window_kb


def colours_of(ax):
    return {mpl.colors.to_hex(c).upper() for drawn in ax.collections for c in drawn.get_facecolor()}


def test_names_of_axes_are_below_one_another():
    """However wide the numbers of a panel are."""
    log10p = -np.array([[1.0, 300.0], [0.2, 12.0], [2.0, 7.0]])
    panels = plot.regional([1e5, 2e5, 3e5], log10p, None, 0, ["a", "b"])
    panels[0].figure.canvas.draw()
    left = [panel.yaxis.label.get_window_extent().x0 for panel in panels]
    assert left[0] == left[1]
    ticks = [panel.get_tightbbox(for_layout_only=True).x0 for panel in panels]
    assert min(ticks) >= left[0] - 1


def test_the_picture(panel, scanned):
    genes = pl.DataFrame(
        {
            "chrom": ["1", "1", "1", "2"],
            "start": [200, 420, 5000, 1],
            "end": [450, 480, 6000, 600],
            "name": ["ABC", "DEF", "FAR", "OTHER"],
        }
    )
    panels = gwas.plot_regional(
        scanned, panel, "rs3", window_kb=0.4, traits=["a", "b"], genes=genes, caption=True
    )
    assert len(panels) == 3
    figure = panels[0].figure
    figure.canvas.draw()
    assert [p.get_title("left") for p in panels[:2]] == ["a", "b"]
    assert panels[-1].get_xlabel() == "position on chromosome 1 (Mb)"
    assert [text.get_text() for text in panels[0].texts] == ["rs3"]
    assert {text.get_text() for text in panels[2].texts} == {"ABC", "DEF"}
    legend = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert legend == [
        "lead", "0.8 to 1", "0.6 to 0.8", "0.4 to 0.6", "0.2 to 0.4", "0 to 0.2", "unknown",
    ]  # fmt: skip
    # Every point is where it was found, but the one without a p-value.
    for ax, expected in ((panels[0], [1, 2, 3, 9, 4]), (panels[1], [1, 1, 2, 1])):
        heights = np.concatenate([drawn.get_offsets()[:, 1] for drawn in ax.collections])
        assert sorted(np.asarray(heights).tolist()) == sorted(expected)
    r2 = by_numpy(panel, 3)
    expected = {R2_COLOURS[int(np.digitize(r2[k], (0.2, 0.4, 0.6, 0.8)))] for k in (0, 1, 4)}
    assert expected | {"#C9C9C9", "#7B3294"} == colours_of(panels[0])


def test_pictures_of_little(scanned):
    one = plot.regional([500], [[-3.0, np.nan]], None, 0, ["a", "b"], lead_name="rs3")
    one[0].figure.canvas.draw()
    assert "not tested here" in [text.get_text() for text in one[1].texts]
    assert [t.get_text() for t in one[0].get_legend().get_texts()] == ["lead", "unknown"]
    alone = gwas.plot_regional(scanned, None, "rs5", window_kb=0.1, title="far away")
    assert alone[0].get_title("left") == "far away"
    assert alone[0].get_title("right") == "a"
    import matplotlib.pyplot as plt

    given = plt.subplots(2)[1]
    assert gwas.plot_regional(scanned, traits=["a", "b"], axes=given)[1] is given[1]
    with pytest.raises(ShapeError, match="1 axes for 2 traits"):
        gwas.plot_regional(scanned, traits=["a", "b"], axes=given[:1])
    with pytest.raises(ShapeError, match="have 1, 2 and 1 entries"):
        plot.regional([500], [-3.0, -2.0], None, 0)
    with pytest.raises(ShapeError, match="lead is number 1"):
        plot.regional([500], [-3.0], None, 1)


def test_many_genes_do_not_overlap():
    random = np.random.default_rng(1)
    starts = random.uniform(0, 1e6, 60)
    genes = [(s, s + random.uniform(1e3, 9e4), f"GENE{k}") for k, s in enumerate(starts)]
    ax = plot.regional([1e5, 9e5], [-1.0, -2.0], None, 0, window=(0, 1e6), genes=genes)[-1]
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert 20 < len(boxes) <= 60
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            same_row = abs(one.y0 - other.y0) < 1
            assert not (same_row and one.x0 < other.x1 and other.x0 < one.x1)


def test_the_guide(panel, scanned, tmp_path, monkeypatch):
    """The commands of docs/gwas.md run."""
    text = (Path(__file__).parents[2] / "docs/gwas.md").read_text(encoding="utf-8")
    commands = re.search(r"```bash\n(plait gwas region .*?)```", text, flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scanned").mkdir()
    scanned.save("scanned/associations.zarr")
    write_bed("genotypes.bed", [panel.calls], panel.variants, panel.samples)
    for command in commands.strip().splitlines():
        assert main(command.split()[1:]) == 0, command


def test_command(panel, scanned, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scanned").mkdir()
    (tmp_path / "demo").mkdir()
    scanned.save("scanned/associations.zarr")
    write_bed("demo/genotypes.bed", [panel.calls], panel.variants, panel.samples)
    assert main(gwas_region.EXAMPLE.split()[1:]) == 0
    assert (tmp_path / "region.png").stat().st_size > 10_000
    assert main(gwas_region.EXAMPLE.split()[1:]) == 2
    pl.DataFrame({"chrom": [1], "start": [1], "end": [99], "name": ["A"]}).write_csv("genes.csv")
    more = "gwas region scanned --lead rs3 --window-kb 0.4 --traits all --genes genes.csv"
    assert main([*more.split(), "--out", "a.svg"]) == 0
    drawn = (tmp_path / "a.svg").read_text()
    assert "rs3" in drawn and "chromosome 1" in drawn
    from plait.io import write_summary_statistics

    write_summary_statistics(scanned.to_summary_statistics("a"), "a.tsv.gz")
    table = "gwas region a.tsv.gz --geno demo/genotypes.bed --traits a --out b.png"
    assert main(table.split()) == 0
    scanned.write_tsv("both.tsv.gz")
    assert main(["gwas", "region", "both.tsv.gz", "--traits", "b", "--out", "both.png"]) == 0
    assert "associations of b around" in capsys.readouterr().out
    table = pl.read_csv("a.tsv.gz", separator="\t")
    below = [table.with_columns(trait=pl.lit(name)) for name in ("height", "bmi index")]
    pl.concat(below).write_csv("long.tsv", separator="\t")
    assert main(["gwas", "region", "long.tsv", "--traits", "bmi index", "--out", "l.png"]) == 0
    assert "associations of bmi index around" in capsys.readouterr().out
    tests = pl.concat(
        [
            table.with_columns(test=pl.lit(t), log10p=log10p)
            for t, log10p in (("ADD", pl.col("log10p")), ("DOM", 2 * pl.col("log10p")))
        ]
    )
    tests.write_csv("tests.tsv", separator="\t")
    tests.filter(test="DOM").write_csv("dom.tsv", separator="\t")
    for words, factor in (("", 1), ("--test DOM", 2)):
        command = f"gwas region tests.tsv {words} --out t.svg --overwrite"
        assert main(command.split()) == 0
        smallest = p_value_text(factor * table["log10p"].min())
        assert f"p = {smallest}: " in capsys.readouterr().out
    (tmp_path / "metal.tsv").write_text("MarkerName\tAllele1\tAllele2\tEffect\tStdErr\tx\n")
    for words, said in (
        ("both.tsv.gz --out c.png", "holds 2 traits (a, b), and of a table one is drawn: say"),
        ("both.tsv.gz --traits all --out c.png", "as in --traits a. Of the folder of a scan"),
        ("both.tsv.gz --traits c --out c.png", "both.tsv.gz has no trait 'c'; there are a, b."),
        ("long.tsv --traits height,x --out c.png", "long.tsv has no trait 'x'; there are height"),
        ("long.tsv --out c.png", "as in --traits height."),
        ("metal.tsv --out c.png", "options of 'plait sumstats convert', which writes a table"),
        ("dom.tsv --out c.png", "is of the test 'ADD'; there are 'DOM'. Say which: --test NAME"),
        ("long.tsv --traits height --test DOM --out c.png", "--test does nothing here"),
        ("scanned --test DOM --out c.png", "--test does nothing with the folder of a scan"),
        ("scanned --lead rs9 --out c.png", "there is no variant 'rs9'"),
        ("demo --out c.png", "demo is not the folder of a scan: associations.zarr is not in it"),
        ("scanned --genes demo/genotypes.bim --out c.png", "genes have the columns chrom, start"),
        ("scanned --out c.txt", "must end in .png"),
    ):
        assert main(["gwas", "region", *words.split()]) == 2
        assert said in capsys.readouterr().err
