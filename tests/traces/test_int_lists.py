"""The fast path for matrices in JSON Lines: the same objects as the JSON parser makes, or the same refusal."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import InputError
from traces.decoding import int_lists
from traces.decoding.int_lists import read_records
from traces.decoding.json_lines import read_objects

INTEGERS = st.integers(-(10**17), 10**17)
VALUES = st.one_of(
    st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(INTEGERS, min_size=n, max_size=n), min_size=1)),
    st.lists(st.lists(st.one_of(INTEGERS, st.floats(allow_nan=False), st.booleans()), max_size=3), max_size=3),
    st.text(max_size=9),
    st.none(),
    st.dictionaries(st.just("m"), st.just([[1, 2]])),
)


def parsed(line: bytes, read: Any, *keys: tuple[str, ...]) -> Any:
    """Return the object of a line with lists in place of arrays, or the codes of the refusal."""
    try:
        ((_, value),) = read(io.BytesIO(line), "f", *keys)
    except InputError as error:
        return [violation.code for violation in error.violations]
    return plain(value)


def plain(value: Any) -> Any:
    """Return lists in place of arrays, in objects inside as well."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@settings(max_examples=200)
@given(st.fixed_dictionaries({"a": VALUES, "m": VALUES, "n": VALUES}), st.sampled_from([None, 0]), st.data())
def test_same_as_json(value: dict[str, Any], indent: int | None, data: st.DataObject) -> None:
    """Whatever the values, spaces and damage."""
    line = json.dumps(value, separators=(",", ":") if indent is None else (" , ", " : ")).encode()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(line) - 1))
        line = line[:at] + data.draw(st.sampled_from([b"", b"[", b"]", b"0", b"-", b",", b"x", b'"'])) + line[at + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int_lists, "SHORT_BYTES", 0)
        assert parsed(line, read_records, ("m", "n")) == parsed(line, read_objects)


def test_long_matrices_are_arrays() -> None:
    """The fast path is taken for what it is made for."""
    rows = np.arange(600).reshape(100, 6)
    line = json.dumps({"m": rows.tolist(), "n": 1}).encode()
    ((_, value),) = read_records(io.BytesIO(line), "f", ("m",))
    assert isinstance(value["m"], np.ndarray)
    assert np.array_equal(value["m"], rows)


def test_blocks_of_matrices_inside_are_arrays() -> None:
    """Lists of lists of lists are found in objects inside, however they are spaced, and kept where they are uneven."""
    block = np.arange(1200).reshape(50, 6, 4)
    uneven = [[[1, 2], [3, 4]], [[1, 2]]] * 40
    value = {"a": [{"m": block.tolist()}, {"m": uneven}], "m": None, "text": '"m": [[[1]]]', "n": {"m": [[1, 2]] * 50}}
    for indent in (None, 2):
        made = int_lists.parse_arrays(json.dumps(value, indent=indent).encode(), "f", ("m",), 3)
        assert np.array_equal(made["a"][0]["m"], block)
        assert isinstance(made["a"][0]["m"], np.ndarray)
        made["a"][0]["m"] = block.tolist()
        assert made == value


def test_a_number_like_the_stand_in_is_no_array() -> None:
    """An object that has the number under such a key is parsed as it is."""
    value = {"m": [[[1, 2]] * 60] * 3, "inside": {"m": int_lists.PLACEHOLDER}}
    assert int_lists.parse_arrays(json.dumps(value).encode(), "f", ("m",), 3) == value
