"""Numbers and lists in words."""

from plait.data.words import counted, listed


def test_one_has_no_plural():
    assert counted(1, "trait") == "1 trait"
    assert counted(0, "byte") == "0 bytes"
    assert counted(2000, "trait") == "2,000 traits"
    assert counted(1, "discovery", "discoveries") == "1 discovery"
    assert counted(3, "discovery", "discoveries") == "3 discoveries"


def test_of_many_names_the_first_are_listed():
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(k) for k in range(30)]).endswith("22, 23 and 6 more")
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
