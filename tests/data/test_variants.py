"""Names of variants."""

from plait.data.variants import VariantTable, variant_names


def test_an_id_is_a_name_where_no_other_variant_has_it():
    table = VariantTable.of(
        ["1"] * 6,
        [1, 2, 3, 4, 5, 6],
        ["A"] * 6,
        ["G"] * 6,
        ["rs1", "twice", "twice", ".", "", "1:1:A:G"],
    )
    named = variant_names(table.frame).to_list()
    assert named == ["rs1", "1:2:A:G", "1:3:A:G", "1:4:A:G", "1:5:A:G", "1:6:A:G"]
    assert len(set(named)) == len(table)


def test_a_missing_id_is_no_name():
    frame = VariantTable.of(["1"], [1], ["A"], ["G"], [None]).frame
    assert variant_names(frame).to_list() == ["1:1:A:G"]
