"""Digests of a study change with everything that its numbers or names depend on."""

import numpy as np
import pytest

from plait.data.fingerprints import study_fingerprints
from plait.data.variants import VariantTable
from plait.io import open_genotypes
from plait.io.genotypes import SelectedGenotypes
from plait.io.plink import write_bed

COLUMNS = {
    "chrom": ["1", "1", "2"], "pos": [5, 6, 7], "oa": ["A", "C", "G"], "ea": ["T", "G", "A"],
    "id": ["r1", "r2", "r3"],
}  # fmt: skip


def of(folder, **changed):
    calls = np.array([[0, 1, 2], [1, 1, 0], [2, 0, 0]], np.int8)
    table = VariantTable.of(**{**COLUMNS, **changed})
    write_bed(folder / "g.bed", [calls], table, ["a", "b", "c"], overwrite=True)
    return study_fingerprints(open_genotypes(folder / "g.bed"))


@pytest.mark.parametrize(
    "changed",
    [
        {"chrom": ["1", "2", "2"]},
        {"pos": [5, 6, 8]},
        {"id": ["r1", "r2", "r4"]},
        {"oa": COLUMNS["ea"], "ea": COLUMNS["oa"]},
    ],
    ids=["chromosome", "position", "id", "alleles"],
)
def test_a_change_of_the_variants_is_seen(tmp_path, changed):
    first = of(tmp_path)
    assert first["the variants"] == of(tmp_path)["the variants"]
    assert first["the variants"] != of(tmp_path, **changed)["the variants"]


def test_which_allele_is_counted_is_seen(tmp_path):
    """Also where the alleles are not known, so that the table of the variants is the same."""
    of(tmp_path, oa=["."] * 3, ea=["."] * 3)
    ea, oa = (open_genotypes(tmp_path / "g.bed", count=count) for count in ("ea", "oa"))
    assert study_fingerprints(ea) != study_fingerprints(oa)
    parts = [SelectedGenotypes(source, slice(1, 3)) for source in (ea, oa)]
    assert study_fingerprints(parts[0]) != study_fingerprints(parts[1])
