import hashlib
import json

import numpy as np
import pytest

from plait.names import DIMENSIONS
from plait.provenance import Provenance, fingerprint, glance, json_safe


def test_dimension_names_are_fixed():
    assert list(DIMENSIONS)[:5] == ["samples", "variants", "traits", "contexts", "effects"]
    assert len(DIMENSIONS) == 14
    with pytest.raises(TypeError):
        DIMENSIONS["effects"] = "other"


def test_provenance_round_trip_through_json(tmp_path):
    provenance = Provenance(
        "plait mash fit",
        options={
            "alpha": np.float64(0.5),
            "df": np.inf,
            "grid": np.array([0.1, 0.2]),
            "big": np.zeros(100),
            "out": tmp_path,
            "names": ("a", "b"),
            "flag": np.bool_(True),
            "levels": {3, 1},
            "callback": print,
        },
        seed=np.int64(7),
        inputs={"bhat": fingerprint(np.eye(2))},
        seconds=1.5,
        threads=2,
    )
    text = json.dumps(provenance.to_dict(), allow_nan=False)
    assert Provenance.from_dict(json.loads(text)) == provenance
    assert provenance.options["df"] == "inf"
    assert provenance.options["grid"] == [0.1, 0.2]
    assert provenance.options["big"].startswith("blake2b:")
    assert provenance.options["callback"] == "<builtin_function_or_method>"
    assert provenance.libraries["numpy"] == np.__version__
    assert provenance.created.endswith("+00:00")


def test_provenance_of_a_later_version_is_read():
    assert Provenance.from_dict({"method": "m", "invented_later": 1}).method == "m"


def test_changing_the_options_afterwards_changes_nothing():
    options = {"grid": [1.0]}
    provenance = Provenance("m", options=options)
    options["grid"].append(2.0)
    assert provenance.options == {"grid": [1.0]}


def test_fingerprint_depends_on_values_shape_and_type_only():
    values = np.arange(12.0).reshape(3, 4)
    print_ = fingerprint(values)
    assert print_ == fingerprint(np.asfortranarray(values))
    assert print_ == fingerprint(values.astype(">f8"))
    assert print_ == fingerprint(np.repeat(values, 2, axis=1)[:, ::2])
    assert print_ != fingerprint(values.reshape(4, 3))
    assert print_ != fingerprint(values.astype(np.float32))
    assert print_ != fingerprint(values + 1e-12)
    assert len(print_) == len("blake2b:") + 32


def test_fingerprint_of_large_arrays_is_taken_in_blocks(monkeypatch):
    values = np.arange(1000.0).reshape(100, 10)
    whole = fingerprint(values)
    monkeypatch.setattr("plait.provenance._BLOCK_BYTES", 240)
    assert fingerprint(values) == whole
    assert fingerprint(np.float64(3.0)) == fingerprint(np.array(3.0))


def test_fingerprint_of_files_and_folders(tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    (one / "a").write_bytes(b"x" * 10)
    first = fingerprint(one)
    assert fingerprint(str(one / "a")) == fingerprint(one / "a") != first
    (one / "a").rename(one / "b")
    assert fingerprint(one) != first
    with pytest.raises(FileNotFoundError):
        fingerprint(tmp_path / "absent")
    with pytest.raises(TypeError, match="objects"):
        fingerprint(np.array([object()]))


def test_json_safe_keeps_what_json_holds():
    value = {"a": [1, 2.5, None, True, "x"], "b": {"c": np.int32(3)}}
    assert json_safe(value) == {"a": [1, 2.5, None, True, "x"], "b": {"c": 3}}


@pytest.mark.parametrize("size", [0, 10, (1 << 20) + 5, (2 << 20) + 7, 5 << 20])
def test_a_glance_is_of_the_first_and_the_last_mebibyte(tmp_path, size):
    data = np.random.default_rng(1).bytes(size)
    place = tmp_path / "large"
    place.write_bytes(data)
    ends = data if size <= 2 << 20 else data[: 1 << 20] + data[-(1 << 20) :]
    found = glance(place)
    assert found["bytes"] == size
    assert found["sha256"] == hashlib.sha256(ends).hexdigest()
