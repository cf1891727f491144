"""Expression in the layout of FastQTL and tensorQTL, read as traits."""

import gzip

import numpy as np
import pytest

from plait.errors import FileFormatError, LabelError
from plait.io import read_phenotypes

HEADER = "#chr\tstart\tend\tphenotype_id\tNA1\tNA2\tNA3\n"
ROWS = "1\t100\t101\tENSG1\t0.5\t-9\t1\n1\t200\t201\tENSG2\t-1.5\tNA\t-9.0\n"


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("#chr", "#Chr").replace("ph", "PH")])
def test_genes_are_traits(tmp_path, header):
    (tmp_path / "e.bed.gz").write_bytes(gzip.compress((header + ROWS).encode()))
    table = read_phenotypes(tmp_path / "e.bed.gz")
    assert table.samples.tolist() == ["NA1", "NA2", "NA3"]
    assert table.names == ("ENSG1", "ENSG2")
    expected = [[0.5, -1.5], [np.nan, np.nan], [1, -9]]
    np.testing.assert_array_equal(table.values, expected)
    one = read_phenotypes(tmp_path / "e.bed.gz", ["ENSG2"])
    assert one.names == ("ENSG2",)


@pytest.mark.parametrize("names", ["phenotype_id\tgene_id\tstrand", "pid\tgid\tStrand"])
def test_qtltools(tmp_path, names):
    """QTLtools has the gene's group and its strand in front of the samples."""
    rows = [line.split("\t") for line in ROWS.splitlines()]
    text = "".join("\t".join([*row[:4], "G", "+", *row[4:]]) + "\n" for row in rows)
    path = tmp_path / "e.bed"
    path.write_text(f"#Chr\tstart\tend\t{names}\tNA1\tNA2\tNA3\n{text}")
    table = read_phenotypes(path)
    assert table.samples.tolist() == ["NA1", "NA2", "NA3"]
    assert table.names == ("ENSG1", "ENSG2")
    np.testing.assert_array_equal(table.values[0], [0.5, -1.5])


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "e.bed").write_text(HEADER + ROWS + "2\t1\t2\tENSG1\t1\t1\t1\n")
    with pytest.raises(LabelError, match="rows 1 and 3 are both 'ENSG1'"):
        read_phenotypes(tmp_path / "e.bed")
    (tmp_path / "e.bed").write_text(HEADER + ROWS.replace("1.5", "high"))
    with pytest.raises(FileFormatError, match="'ENSG2' has '-high' for sample 'NA1'"):
        read_phenotypes(tmp_path / "e.bed")
