"""Parquet files whose page headers claim more than there is are refused before the library allocates it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_ids
from tests.fuzzing import peak_bytes, reset_peak
from traces import InputError, Trace, load, save
from traces.decoding.parquet_pages import _Compact
from traces.formats import UnpackLimits

pytest.importorskip("pyarrow")


def varint(value: int) -> bytes:
    """Encode a number as headers do."""
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def header(unpacked: int, packed: int) -> bytes:
    """Return the header of a data page."""
    return b"\x15\x00\x15" + varint(2 * unpacked) + b"\x15" + varint(2 * packed)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a trace of one column chunk that begins with a data page."""
    ids = random_ids(0, 2000, 3, 8)
    save(Trace.of(ids, num_experts=8, seq_id=np.arange(2000)), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("claimed", [200_000_000, 1 << 30, (1 << 31) - 1])
def test_claims_of_pages_take_no_memory(saved: Path, claimed: int) -> None:
    """Whatever sizes a header claims, it is an error, and memory stays small."""
    import pyarrow.parquet as pq

    content = bytearray(saved.read_bytes())
    chunk = pq.ParquetFile(saved).metadata.row_group(0).column(1)
    parser = _Compact(bytes(content[chunk.data_page_offset :]))
    fields = parser.struct()
    for unpacked, packed in ((claimed, fields[3]), (fields[2], claimed)):
        new = header(unpacked, packed)
        content[chunk.data_page_offset : chunk.data_page_offset + len(new)] = new
        saved.write_bytes(content)
        before = reset_peak()
        with pytest.raises(InputError):
            list(_tokens(saved))
        assert peak_bytes() - before < 100 << 20


def _tokens(path: Path) -> Any:
    trace = load(path)
    assert isinstance(trace, Trace)
    return trace.batches()


def test_what_pages_unpack_to_is_limited(saved: Path) -> None:
    """Columns of one value compress without end; the limits of archives hold for them, too."""
    with pytest.raises(InputError, match="unpacks_too_large"):
        load(saved, unpack=UnpackLimits(max_bytes=1000))
    assert load(saved).num_experts == 8
