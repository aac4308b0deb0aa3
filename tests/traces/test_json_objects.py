"""Objects are cut out of lines, lists and single documents alike, whatever the chunks they come in."""

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import InputError
from traces.decoding import json_objects, object_scan
from traces.decoding.json_objects import split_objects

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), min_size=1, max_size=4)


@settings(max_examples=40)
@given(OBJECTS, st.integers(1, 9), st.sampled_from(["lines", "list", "pretty"]), st.integers(1, 3))
def test_objects_come_out_as_they_went_in(objects: list[dict[str, Any]], chunk: int, layout: str, most: int) -> None:
    """Quotes, escapes and braces in texts don't matter, nor where a chunk ends."""
    text = {
        "lines": "\n".join(map(json.dumps, objects)),
        "list": json.dumps(objects),
        "pretty": "\n".join(json.dumps(item, indent=1, ensure_ascii=False) for item in objects),
    }[layout]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_objects, "CHUNK_BYTES", chunk)
        patch.setattr(object_scan, "MOST", most)
        found = list(split_objects(io.BytesIO(text.encode("utf-8", "surrogatepass")), "f"))
    assert [value for _, value in found] == objects
    assert found[0][0] == "f#object 1"


@pytest.mark.parametrize(
    "text",
    [
        *('{"a": 1', '[{"a": 1}', '[{"a": 1}] {', "[1]", "x", '{"a": 1},{"b": 2}', '{"a": NaN}', '{"a": 1, "a": 2}'),
        *("[" * 9, '{"a":' * 300, '{"a": "\\', '{"a"}', "[,{}]"),
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    """Cut-off, nested beyond measure or not strict JSON: an error with a place."""
    with pytest.raises(InputError, match="f#object"):
        list(split_objects(io.BytesIO(text.encode()), "f"))


def test_objects_have_a_largest_size() -> None:
    """A file that never ends an object is not read as a whole."""
    with pytest.raises(InputError, match="object_too_large"):
        list(split_objects(io.BytesIO(b'{"a": "' + b"x" * 5000), "f", 4000))


@pytest.mark.parametrize("inside", [b'"",', b"[],", b"{},", rb'"\\\\",', b"[1,2,3],"])
def test_one_long_line_is_scanned_in_no_time(inside: bytes) -> None:
    """16 MB of one object, whatever is in it, take less than half a second: a hostile file must not hold a reader."""
    data = b'{"a": [' + inside * ((16 << 20) // len(inside))
    begun = time.process_time()
    with pytest.raises(InputError, match="cut off"):
        list(split_objects(io.BytesIO(data), "f"))
    assert time.process_time() - begun < 0.5
