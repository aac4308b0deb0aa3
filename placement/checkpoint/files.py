"""The files of a checkpoint: shards of safetensors with their headers, and what lies beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from placement.support.json_files import read_json
from traces import Violations
from traces.decoding.files import guarded

__all__ = ["Checkpoint", "Shard", "Tensor", "read_checkpoint"]

INDEX = ".safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = (*PICKLED, ".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".npy", ".ot", ".index.json")
"""Endings of files that hold, or list, weights in some other form: they are not renumbered, so they are not copied."""
CONVERT = (
    "Convert it first: load it with transformers, and call save_pretrained, which writes model.safetensors. Pickled"
    " files can run code when they are loaded, so they are not opened here."
)


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor's entry in the header of its file.

    Attributes
    ----------
    dtype : str
        As safetensors writes it, such as ``BF16``.
    shape : tuple of int
    begin, end : int
        Place of its bytes, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of tensors.

    Attributes
    ----------
    path : Path
    metadata : dict or None
        Texts of its ``__metadata__``.
    tensors : dict of str to Tensor
        In the order of their bytes.
    start : int
        Where the bytes begin.
    """

    path: Path
    metadata: dict[str, str] | None
    tensors: dict[str, Tensor]
    start: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is in a folder.

    Attributes
    ----------
    folder : Path
    config : object
        Content of its ``config.json``.
    shards : tuple of Shard
    index : Path or None
        The file that says which shard has which tensor, where there is one.
    beside : tuple of Path
        Files that are copied as they are.
    left : tuple of str
        Names of what is left out: folders, and weights in another form.
    """

    folder: Path
    config: Any
    shards: tuple[Shard, ...]
    index: Path | None
    beside: tuple[Path, ...]
    left: tuple[str, ...]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Look at a checkpoint's files and headers; no tensor is read.

    Raises
    ------
    InputError
        With every violation: no folder, no config, pickled weights only, shards that are missing or damaged, or hold
        other tensors than the index says.
    """
    found = Violations()
    if not folder.is_dir():
        remedy = (
            "Name the folder that holds config.json and the safetensors files; download it first if it is on a hub."
        )
        found.add("no_checkpoint", str(folder), "There is no such folder.", remedy)
        found.raise_if_any()
    config = folder / "config.json"
    if not config.is_file():
        remedy = "Name a folder as transformers' save_pretrained writes it."
        found.add("no_config", str(config), "The folder has no config.json, which says where experts are.", remedy)
    index, names = _named(folder, found)
    found.raise_if_any()
    shards = []
    for name in names:
        try:
            shards.append(_shard(folder / name))
        except ValueError as error:
            _add(found, error)
    if index is not None and not found.found:
        _check_index(index, read_json(index)["weight_map"], shards, found)
    found.raise_if_any()
    taken = {*names, *(() if index is None else (index.name,))}
    rest = sorted(path for path in folder.iterdir() if path.name not in taken and not path.name.startswith("."))
    beside = [path for path in rest if path.is_file() and not path.name.lower().endswith(WEIGHTS)]
    return Checkpoint(
        folder=folder,
        config=read_json(config),
        shards=tuple(shards),
        index=index,
        beside=tuple(beside),
        left=tuple(path.name for path in rest if path not in beside),
    )


def _add(found: Violations, error: ValueError) -> None:
    from traces import InputError

    if not isinstance(error, InputError):
        raise error
    found.extend(error)


def _named(folder: Path, found: Violations) -> tuple[Path | None, list[str]]:
    """Return the index, if there is one, and the names of the shards."""
    indexes = sorted(folder.glob(f"*{INDEX}"))
    preferred = folder / f"model{INDEX}"
    if preferred in indexes:
        indexes = [preferred]
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(indexes) == 1:
        return indexes[0], _indexed(folder, indexes[0], found)
    if not indexes and (SINGLE in files or len(files) == 1):
        return None, [SINGLE if SINGLE in files else files[0]]
    pickled = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(PICKLED))
    if pickled and not files:
        detail = f"The weights are pickled ({', '.join(pickled[:4])}); only safetensors are renumbered."
        found.add("pickled_checkpoint", str(folder / pickled[0]), detail, CONVERT)
    elif not files:
        detail = "The folder has no safetensors file."
        found.add("no_weights", str(folder), detail, "Name a folder as transformers' save_pretrained writes it.")
    else:
        detail = f"Several files ({', '.join(files[:4])}), and no model{INDEX} that says which belong together."
        found.add("no_index", str(folder), detail, "Save the model with transformers' save_pretrained.")
    return None, []


def _indexed(folder: Path, index: Path, found: Violations) -> list[str]:
    content = read_json(index)
    parts = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        detail = "It has no weight_map from tensors to files."
        found.add("damaged_file", f"{index.name}#/weight_map", detail, "Copy the checkpoint again.")
        return []
    names = sorted(set(parts.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            detail = f"{name!r:.80} is no safetensors file of this folder."
            remedy = CONVERT if name.lower().endswith(PICKLED) else "Copy the checkpoint again."
            found.add("shard_name", f"{index.name}#/weight_map", detail, remedy)
        elif not (folder / name).is_file():
            detail = f"{name} is missing, which the index names."
            found.add("shard_missing", str(folder / name), detail, "Copy or download the checkpoint again, as a whole.")
    return names


def _check_index(index: Path, parts: dict[str, str], shards: list[Shard], found: Violations) -> None:
    there = {name: shard.path.name for shard in shards for name in shard.tensors}
    for name in sorted({*parts, *there}):
        if parts.get(name) != there.get(name):
            detail = (
                f"{name!r:.120} is in {there.get(name, 'no file')}, and in {parts.get(name, 'no file')} by the index."
            )
            found.add("index_differs", f"{index.name}#/weight_map", detail, "Copy the checkpoint again, as a whole.")
            if len(found.found) >= 20:
                return


def _shard(path: Path) -> Shard:
    """Read a header, which the library has checked: offsets without holes, sizes that fit shapes and types."""
    with guarded(str(path), SafetensorError):
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None)
    tensors = {
        name: Tensor(
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            begin=entry["data_offsets"][0],
            end=entry["data_offsets"][1],
        )
        for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"]))
    }
    return Shard(path=path, metadata=metadata, tensors=tensors, start=8 + length)
