"""Tables beside PLINK genotypes that stay in their files: any slice is that of the whole table."""

import gzip
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.data.variants import VariantsInFile, VariantTable
from plait.errors import FileFormatError, TruncatedFileError
from plait.io.plink_tables import TextRows, bim_variants, read_bim

COUNT = 3000
COLUMNS = ("pos", "ea", "oa", "id", "chrom")


def lines(count=COUNT, between="\t"):
    rows = [("21" if j < 1500 else "X", f"rs{j}", "0", 10 * j + 1, "A", "C") for j in range(count)]
    return [between.join(map(str, row)) for row in rows]


def written(folder, text, name="a.bim"):
    (folder / name).write_bytes(text.encode())
    return folder / name


def same_arrays(one, other):
    """Assert that tables have the same columns, and that these are of the same types."""
    first, second = (table.arrays(COLUMNS) for table in (one, other))
    assert list(first) == list(second) == list(COLUMNS)
    for name in COLUMNS:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name])


@settings(max_examples=30, deadline=None)
@given(
    count=st.sampled_from([1, 1023, 1024, 1025, 2048, COUNT]),
    between=st.sampled_from(["\t", " ", "  \t "]),
    newline=st.sampled_from(["\n", "\r\n"]),
    end=st.sampled_from(["", "\n", "\n\n \n"]),
    data=st.data(),
)
def test_slices_are_those_of_the_whole_table(tmp_path_factory, count, between, newline, end, data):
    folder = tmp_path_factory.mktemp("bim")
    place = written(folder, newline.join(lines(count, between)) + end.replace("\n", newline))
    rows = TextRows.of(place)
    assert rows.count == count
    start, stop = data.draw(st.tuples(st.integers(0, count), st.integers(0, count + 9)))
    for allele in ("ea", "oa"):
        there, whole = bim_variants(rows, allele), read_bim(place, allele)
        assert len(there) == count and there[start:stop].frame.equals(whole.frame[start:stop])
        assert there.chromosomes == whole.chromosomes
        same_arrays(there[start:stop], whole[start:stop])
        assert pickle.loads(pickle.dumps(there)).frame.equals(whole.frame)


def test_slices_are_read_alone(tmp_path):
    place = written(tmp_path, "\n".join(lines()))
    table = bim_variants(TextRows.of(place))
    assert isinstance(table, VariantsInFile) and "VariantTable(3,000" in repr(table)
    assert table[2900:2903].pos.tolist() == [29001, 29011, 29021]
    assert table.chromosomes == [("21", slice(0, 1500)), ("X", slice(1500, COUNT))]
    assert table[5:9][1:3].frame["id"].to_list() == ["rs6", "rs7"]
    assert "frame" not in vars(table)
    assert table[np.array([7, 2, 2999])].frame["id"].to_list() == ["rs7", "rs2", "rs2999"]
    assert table[10:4].frame.height == 0 and table[::1000].pos.tolist() == [1, 10001, 20001]


def test_errors_name_the_row_of_the_file(tmp_path):
    text = lines()
    text[2500] = text[2500].replace("25001", "here")
    table = bim_variants(TextRows.of(written(tmp_path, "\n".join(text))))
    assert len(table[:2000]) == 2000
    with pytest.raises(FileFormatError, match="row 2501 has 'here' as position"):
        _ = table.pos
    for bad in ("", "1 rs1 0 1 A"):
        with pytest.raises(FileFormatError, match=r"row 1 has \d columns; expected 6"):
            bim_variants(TextRows.of(written(tmp_path, bad)))


@pytest.mark.parametrize("column", range(6))
def test_empty_cells_are_named(tmp_path, column):
    """They are never read as the text 'None', be the table whole or a slice."""
    text = lines(2000)
    cells = text[1500].split("\t")
    cells[column] = ""
    text[1500] = "\t".join(cells)
    place = written(tmp_path, "\n".join(text))
    match = rf"row 1501 has nothing in column {column + 1} of 6 \(chrom, id, .*expected a value"
    there = bim_variants(TextRows.of(place))
    assert len(there[:1024].arrays(COLUMNS)["id"]) == 1024
    for read in (lambda: read_bim(place), lambda: there[1400:1600].arrays(COLUMNS)):
        with pytest.raises(FileFormatError, match=match):
            read()


def test_rows_with_too_few_columns_are_named(tmp_path):
    text = lines(2000)
    for short in (text[1500].rpartition("\t")[0], "", "# by hand", text[1500].replace("\t", " ")):
        place = written(tmp_path, "\n".join([*text[:1500], short, *text[1501:]]))
        with pytest.raises(FileFormatError, match="row 1501 has nothing in column"):
            bim_variants(TextRows.of(place)).arrays(COLUMNS)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("row", [0, 1500, 1999])
def test_blanks_beside_tabs_are_no_part_of_names(tmp_path, row, newline):
    text = lines(2000)
    clean = read_bim(written(tmp_path, newline.join(text)))
    text[row] = " " + text[row].replace("\t", " \t  ") + " "
    place = written(tmp_path, newline.join(text) + newline)
    for table in (bim_variants(TextRows.of(place)), read_bim(place)):
        assert table[:].frame.equals(clean.frame)
        same_arrays(table, clean)


@pytest.mark.parametrize("between", ["\t", " "])
@pytest.mark.parametrize("more", ["\tC", " C", "\t C"])
@pytest.mark.parametrize("row", [0, 1500])
def test_rows_with_too_many_columns_are_named(tmp_path, between, more, row):
    text = lines(2000, between)
    text[row] += more
    place = written(tmp_path, "\n".join(text))
    match = rf"a\.bim: row {row + 1} has 7 columns; expected 6: chrom, id, cm, pos, ea, oa\."
    for read in (lambda: bim_variants(TextRows.of(place)).arrays(COLUMNS), lambda: read_bim(place)):
        with pytest.raises(FileFormatError, match=match) as caught:
            read()
        assert "truncate_ragged_lines" not in str(caught.value)


def test_text_that_is_not_in_utf_8_is_refused(tmp_path):
    place = tmp_path / "a.bim"
    place.write_bytes("\n".join(lines(2000)).encode().replace(b"rs1500\t", b"rs\xff\t"))
    with pytest.raises(FileFormatError, match="not a table of 6 columns of text in UTF-8"):
        read_bim(place)


def test_a_file_that_changes_is_refused(tmp_path):
    place = written(tmp_path, "\n".join(lines()))
    table = bim_variants(TextRows.of(place))
    place.write_text("\n".join(lines(2000)))
    with pytest.raises(TruncatedFileError, match="changed while it was read"):
        _ = table[2500:2600].pos
    with pytest.raises(TruncatedFileError, match="changed while it was read"):
        _ = table.digest


@settings(max_examples=40, deadline=None)
@given(
    id=st.text("ab:.-é", min_size=1, max_size=9),
    cm=st.sampled_from(["0", "1.25", "-0.5", ".5", "1e-3"]),
    pos=st.sampled_from(["0", "7", "-3", "007", "123456789012"]),
    alleles=st.tuples(*[st.text("ACGT0.*", min_size=1, max_size=30)] * 2),
    blank=st.sampled_from(["", " "]),
)
def test_columns_are_those_of_the_frame(tmp_path_factory, id, cm, pos, alleles, blank):
    """Whether text is plain, and split by compiled loops, or not."""
    text = lines(1500)
    text[1200] = "\t".join(["21", id, cm, pos, *alleles]) + blank
    place = written(tmp_path_factory.mktemp("bim"), "\n".join(text))
    for allele in ("ea", "oa"):
        there, whole = bim_variants(TextRows.of(place), allele), read_bim(place, allele)
        same_arrays(there, whole)
        same_arrays(there[1100:1300], whole[1100:1300])
        np.testing.assert_array_equal(there[1024:1030].pos, whole.pos[1024:1030])


def test_the_digest_is_of_the_file_and_of_which_variants(tmp_path):
    place = written(tmp_path, "\n".join(lines()))
    table = bim_variants(TextRows.of(place))
    digests = [table.digest, table[:9].digest, table[9:18].digest]
    assert len(set(digests)) == 3
    assert bim_variants(TextRows.of(place)).digest == digests[0]
    written(tmp_path, "\n".join(lines()).replace("rs7\t", "rs0\t"))
    assert bim_variants(TextRows.of(place))[:9].digest != digests[1]


def test_compressed_tables_are_read_at_once(tmp_path):
    place = tmp_path / "a.bim.gz"
    place.write_bytes(gzip.compress("\n".join(lines()).encode()))
    rows = TextRows.of(place)
    table = bim_variants(rows)
    assert rows.count == COUNT and type(table) is VariantTable and len(table) == COUNT
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="damaged"):
        TextRows.of(place)
