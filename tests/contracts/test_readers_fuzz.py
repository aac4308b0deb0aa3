"""Every reader on mutated files. ``FUZZ_MUTATIONS=2000`` in the environment makes it thorough."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.contracts.test_readers_contract import EXAMPLES, OPTIONS
from tests.engine_files import ENGINE_FILES, Toy, write_bundle
from tests.fuzzing import fuzz
from traces import ModelLayout
from traces.formats import READERS

COUNT = int(os.environ.get("FUZZ_MUTATIONS", "40"))


def _tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("folder/trace")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": lambda content: zstandard.ZstdCompressor().compress(content),
    "tar": _tar,
    "tar.gz": lambda content: gzip.compress(_tar(content)),
}


@pytest.mark.timeout(60 + 2 * COUNT)
@pytest.mark.parametrize("name", [reader.name for reader in READERS])
def test_mutated_files_end_in_an_error_or_a_valid_trace(tmp_path: Path, name: str) -> None:
    """No other exception, no more than 5 seconds, no more than 1 GB; and some mutations are found out."""
    outcomes = fuzz(EXAMPLES[name](tmp_path), OPTIONS.get(name, {}), name, tmp_path, COUNT)
    assert outcomes["error"]


@pytest.mark.timeout(60 + 2 * COUNT)
@pytest.mark.parametrize("name", ENGINE_FILES)
def test_mutated_dumps_of_engines_end_in_an_error_or_a_valid_trace(tmp_path: Path, name: str) -> None:
    """The same for dumps with dense layers, padding, several ranks and responses."""
    toy, reader = Toy(), name.split()[0]
    model = ModelLayout.of(toy.layers, moe_layers=toy.moe)
    options = {"model": model, "top_k": toy.top_k} if reader == "sglang_routed_experts" else {}
    assert fuzz(write_bundle(tmp_path / "dump", ENGINE_FILES[name](toy)), options, reader, tmp_path, COUNT)["error"]


@pytest.mark.timeout(60 + 2 * COUNT)
@pytest.mark.parametrize("packer", PACKERS)
def test_mutated_archives_end_in_an_error_or_a_valid_trace(tmp_path: Path, packer: str) -> None:
    """The same for what unpacks them."""
    path = tmp_path / "packed"
    path.write_bytes(PACKERS[packer](EXAMPLES["npz"](tmp_path).read_bytes()))
    assert fuzz(path, {}, "npz", tmp_path, COUNT)["error"]
