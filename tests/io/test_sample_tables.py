"""Traits and covariates from data frames: read as the files that they would be."""

import logging
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.errors import FileFormatError, LabelError
from plait.io import read_covariates, read_phenotypes

NUMBERS = st.lists(st.floats(allow_infinity=False), min_size=1, max_size=20).filter(
    # A column whose only negative value is -9 has missing values.
    lambda values: {value for value in values if value < 0} != {-9.0}
)


@settings(deadline=None)
@given(NUMBERS)
def test_every_digit_is_kept(values):
    names = [f"s{i}" for i in range(len(values))]
    for frame in (
        pl.DataFrame({"IID": names, "y": values}),
        pd.DataFrame({"y": values}, index=names),
    ):
        table = read_phenotypes(frame)
        assert table.names == ("y",)
        assert table.samples.tolist() == names
        np.testing.assert_array_equal(table.values[:, 0], values)


def test_types_of_columns():
    frame = pd.DataFrame(
        {
            "real": np.array([1.5, np.nan, 0.1], dtype=np.float32),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "truth": [True, False, True],
            "text": ["2", None, "NA"],
        },
        index=pd.Index([7, 8, 9], name="IID"),
    )
    table = read_phenotypes(frame)
    assert table.samples.tolist() == ["7", "8", "9"]
    np.testing.assert_array_equal(
        table.values,
        [[1.5, 1, 1, 2], [np.nan, np.nan, 0, np.nan], [np.float32(0.1), 3, 1, np.nan]],
    )
    groups = read_covariates(frame.assign(batch=pd.Categorical(["u", "v", "u"])), ["batch"])
    assert groups.names == ("batch=v",)
    np.testing.assert_array_equal(groups.values[:, 0], [0, 1, 0])


def test_who_names_the_samples():
    column = pd.DataFrame({"sample": ["a", "b"], "y": [1.0, 2.0]}, index=["p", "q"])
    assert read_phenotypes(column).samples.tolist() == ["a", "b"]
    pairs = pd.MultiIndex.from_tuples([("f", 1), ("g", 1)], names=["FID", "IID"])
    families = pd.DataFrame({"y": [1.0, 2.0]}, index=pairs)
    assert read_phenotypes(families).samples.tolist() == ["f:1", "g:1"]
    with pytest.raises(LabelError, match="does not name its samples"):
        read_phenotypes(pl.DataFrame({"x": [1.0], "y": [2.0]}))
    twice = pd.DataFrame([["a", 1.0, 2.0]], columns=["IID", "y", "y"])
    with pytest.raises(LabelError, match="columns 2 and 3 are both 'y'"):
        read_phenotypes(twice)


def test_parquet_is_read_as_the_frame_in_it(tmp_path):
    frame = pl.DataFrame({"IID": ["a", "b", "c"], "y": [0.1, None, -9.0], "t": ["x", "", "NA"]})
    frame.write_parquet(tmp_path / "t.parquet")
    for source in (frame, tmp_path / "t.parquet"):
        np.testing.assert_array_equal(
            read_phenotypes(source, ["y"]).values[:, 0], [0.1] + 2 * [np.nan]
        )
        assert np.isnan(read_covariates(source, ["t", "y"]).values[1:, -1]).all()


def test_codes_of_missing_values_are_counted_once(tmp_path, caplog):
    path = tmp_path / "t.csv"
    path.write_text("IID,a,b,c,d\np,-9,1,-9,-9\nq,-9,-9,-2,1\nr,1,-9,3,2\n")
    with caplog.at_level(logging.INFO, "plait.io"):
        table = read_phenotypes(path)
    np.testing.assert_array_equal(np.isnan(table.values).sum(axis=0), [2, 2, 0, 1])
    notices = [record for record in caplog.records if getattr(record, "notice", False)]
    assert [record.getMessage() for record in notices] == [
        f"{path}: values of -9 taken as missing, where no other value is negative: 5 (in 'a' and "
        "2 more)"
    ]


def codes_said(values, record):
    frame = pl.DataFrame({"IID": [f"s{i}" for i in range(len(values))], "y": values})
    record.clear()
    np.testing.assert_array_equal(read_phenotypes(frame).values[:, 0], values)
    return [str(warning.message) for warning in record]


def test_codes_of_missing_values_among_negative_numbers_are_warned_of(recwarn):
    """-9 in a trait in standard deviations is hardly nine of them."""
    random = np.random.default_rng(1)
    scores = random.normal(size=50)
    told = codes_said(np.append(scores, [-9, -9]), recwarn)
    assert len(told) == 1 and "taken as numbers: -9 in 'y', 2 of them. Write NA" in told[0]
    assert "-999 in 'y', 1 of them" in codes_said(np.append(50 + scores, -999), recwarn)[0]
    # Within the range of the others it is the ties that tell.
    wide = 20 * scores
    assert "-9 in 'y', 3 of them" in codes_said(np.append(wide, [-9] * 3), recwarn)[0]
    for values in (np.append(wide, -9), np.arange(-9.0, 30), np.repeat(np.arange(-12.0, 30), 4)):
        assert codes_said(values, recwarn) == []


def test_nines_are_missing_in_groups_too(tmp_path, caplog):
    """-9 in text and in numbers that name groups, unless other numbers are negative there."""
    path = tmp_path / "c.csv"
    path.write_text(
        "IID,sex,batch,zone,age\n"
        "a,M,1,-1,30\nb,F,2,-9,-9\nc,-9,-9,x,40\nd,M,1,x,50\ne,-9.0,2,-1,60\nf,F,1,.,-9\n"
    )
    with caplog.at_level(logging.INFO, "plait.io"):
        table = read_covariates(path, categorical=["batch"])
    # "-9.0" is the same number; -9 is a value beside -1.
    assert table.names == ("sex=M", "batch=2", "zone=-9", "zone=x", "age")
    gone = np.isnan(table.values)
    np.testing.assert_array_equal(gone[:, 0], [0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(gone[:, 1], [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(gone[:, 2], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(gone[:, 4], [0, 1, 0, 0, 0, 1])
    told = [r.getMessage() for r in caplog.records if getattr(r, "notice", False)]
    assert told == [
        f"{path}: values of -9 taken as missing, where no other value is negative: 5 "
        "(in 'sex' and 2 more)"
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("HG1,1.671629\nHG2,0.4\n", "the first line has '1.671629' for the name of a column"),
        ("HG1 HG1 -.5e-3\nHG2 HG2 0.4\n", "two columns are both named 'HG1'"),
        ("IID\ty\ty\nHG1\t1\t2\n", "two columns are both named 'y'"),
    ],
)
@pytest.mark.parametrize("read", [read_phenotypes, read_covariates])
def test_a_first_line_that_names_no_columns(read, text, why, tmp_path):
    path = tmp_path / "y.txt"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(f"{path}: {why}. Expected a first line")):
        read(path)


def test_whole_numbers_name_traits(tmp_path):
    path = tmp_path / "y.csv"
    path.write_text("IID,1,2\na,0.5,1\nb,0.25,2\n")
    assert read_phenotypes(path).names == ("1", "2")
