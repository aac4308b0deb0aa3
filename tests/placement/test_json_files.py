"""What is refused before a JSON file is looked into: pipes, devices, too much, and text that is none."""

import json
import os
from pathlib import Path

import pytest

from placement.support import json_files
from placement.support.json_files import read_json, write_json
from traces import InputError


def refused(path: Path) -> str:
    """Return the code of the violation on reading `path`."""
    with pytest.raises(InputError) as error:
        read_json(path)
    (violation,) = error.value.violations
    assert violation.pointer
    assert violation.remedy
    return violation.code


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would block for ever."""
    os.mkfifo(tmp_path / "t.json")
    assert refused(tmp_path / "t.json") == "not_a_file"


@pytest.mark.timeout(20)
def test_a_device_is_refused(tmp_path: Path) -> None:
    """Neither is /dev/zero read, nor a link to it."""
    (tmp_path / "t.json").symlink_to("/dev/zero")
    assert refused(tmp_path / "t.json") == "not_a_file"
    assert refused(Path("/dev/zero")) == "not_a_file"


def test_a_folder_and_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    """A folder, a missing file, a link to itself, a name that no file can have."""
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert refused(tmp_path) == "not_a_file"
    for path in (tmp_path / "none.json", tmp_path / "loop.json", tmp_path / ("n" * 300), Path("a\0b")):
        assert refused(path) == "cannot_read"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte above the cap is too many, the cap itself is not."""
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    (tmp_path / "t.json").write_text("[1,2,3,45]")
    assert read_json(tmp_path / "t.json") == [1, 2, 3, 45]
    (tmp_path / "t.json").write_text("[1,2,3,456]")
    assert refused(tmp_path / "t.json") == "file_too_large"


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '{"a": ["x", {"b": "\\uDC00y"}]}', '{"\\ud800": 1}', '["\\udc00\\ud800"]']
)
def test_half_a_surrogate_pair_is_refused(text: str, tmp_path: Path) -> None:
    """Valid JSON, but no text: it could be neither printed nor written."""
    (tmp_path / "t.json").write_text(text)
    assert refused(tmp_path / "t.json") == "not_unicode"


def test_any_other_text_is_read(tmp_path: Path) -> None:
    """A whole surrogate pair is one character."""
    (tmp_path / "t.json").write_text('["\\ud83d\\ude00", "\\u00e9\\u0000"]')
    assert read_json(tmp_path / "t.json") == ["\N{GRINNING FACE}", "é\0"]


def test_what_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """Latin-1, say."""
    (tmp_path / "t.json").write_bytes(b'"\xe9"')
    assert refused(tmp_path / "t.json") == "not_json"


def test_round_trip(tmp_path: Path) -> None:
    """What was written is read."""
    content = {"é": [1, 2.5, None, True, "\N{GRINNING FACE}"], "b": {}}
    write_json(content, tmp_path / "t.json")
    assert read_json(tmp_path / "t.json") == content
    assert json.loads((tmp_path / "t.json").read_bytes()) == content
