"""Numbers and lists in words."""

from plait.data.words import counted, known_names, listed, shortened


def test_one_has_no_plural():
    assert counted(1, "trait") == "1 trait"
    assert counted(0, "byte") == "0 bytes"
    assert counted(2000, "trait") == "2,000 traits"
    assert counted(1, "discovery", "discoveries") == "1 discovery"
    assert counted(3, "discovery", "discoveries") == "3 discoveries"


def test_long_names_keep_both_ends():
    assert shortened("IFNGR1g2", 8) == "IFNGR1g2"
    assert shortened("non-targeting_guide_12", 12) == "non-tar…e_12"


def test_of_many_names_the_first_are_listed():
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(k) for k in range(30)]).endswith("22, 23 and 6 more")
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"


def test_what_there_is_in_the_place_of_a_name_that_is_not():
    names = ["batch", "n_umis", "n_nonzero"]
    assert known_names("n_umi", names) == (
        "near it: 'n_umis'; there are 'batch', 'n_umis', 'n_nonzero'"
    )
    assert known_names("Batch", names).startswith("near it: 'batch';")
    assert known_names("lane", names) == "there are 'batch', 'n_umis', 'n_nonzero'"
    assert known_names("lane", [7]) == "there is '7'"
    assert known_names("lane", []) == "there is none"
    many = known_names("column_71", [f"column_{j}" for j in range(100)], most=2)
    assert many.startswith("near it: 'column_71', ") and many.endswith("'column_1' and 98 more")
