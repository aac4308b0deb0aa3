"""One small trace, as every engine would have written it: ranks, passes and physical experts in no order."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.torch_files import torch_bytes

__all__ = ["ENGINE_FILES", "Toy", "write_bundle"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Tokens of several requests on a model with dense layers 0 and 3; expert 0 of layer 1 is never used.

    Attributes
    ----------
    layers : int
        Of the model.
    moe : tuple of int
        MoE layers, in rising order.
    experts, top_k, ranks, passes : int
    lengths : tuple of int
        Tokens of each request.
    slots : int
        Physical experts per layer, P.
    seed : int
    """

    layers: int = 6
    moe: tuple[int, ...] = (1, 2, 4, 5)
    experts: int = 16
    top_k: int = 3
    ranks: int = 3
    passes: int = 4
    lengths: tuple[int, ...] = (40, 7, 61, 12)
    slots: int = 24
    seed: int = 0
    ids: Ints = field(init=False)
    maps: Ints = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        tokens, moe = sum(self.lengths), len(self.moe)
        ids = 1 + rng.random((tokens, moe, self.experts - 1)).argsort(axis=2)[:, :, : self.top_k]
        ids[rng.random(ids.shape[0]) < 0.3, 1:] -= 1
        maps = np.tile(np.arange(self.slots) % self.experts, (self.layers, 1))
        maps[list(self.moe)] = rng.permuted(maps[list(self.moe)], axis=1)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "maps", maps)

    @property
    def load(self) -> npt.NDArray[np.float64]:
        """(L, E) tokens per expert."""
        counts = [np.bincount(self.ids[:, layer].ravel(), minlength=self.experts) for layer in range(len(self.moe))]
        return np.array(counts, dtype=np.float64)

    @property
    def whole(self) -> Ints:
        """(T, layers of the model, K) ids, dense layers all zero."""
        whole = np.zeros((len(self.ids), self.layers, self.top_k), np.int64)
        whole[:, list(self.moe)] = self.ids
        return whole

    @property
    def physical(self) -> Ints:
        """(T, layers of the model, K) physical ids, a random replica of each expert; -1 in dense layers."""
        rng = np.random.default_rng(self.seed + 1)
        physical = np.full((len(self.ids), self.layers, self.top_k), -1)
        for index, layer in enumerate(self.moe):
            for expert in range(self.experts):
                where = np.nonzero(self.ids[:, index] == expert)
                replicas = np.flatnonzero(self.maps[layer] == expert)
                physical[where[0], layer, where[1]] = rng.choice(replicas, len(where[0]))
        return physical

    def requests(self) -> list[Ints]:
        """Rows of `whole` by request."""
        return np.split(self.whole, np.cumsum(self.lengths)[:-1])

    def shares(self) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
        """(pass, rank, tokens) of every record, in order: tokens are dealt out in turn."""
        parts = np.array_split(np.arange(len(self.ids)), self.passes * self.ranks)
        return [(10 + number // self.ranks, number % self.ranks, part) for number, part in enumerate(parts)]


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return the content of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def text(data: bytes) -> str:
    """Encode in base64."""
    return base64.b64encode(data).decode()


def vllm_array(toy: Toy) -> dict[str, bytes]:
    """One array."""
    return {"routed.npy": npy_bytes(toy.whole.astype(np.uint8))}


def vllm_response(toy: Toy, rows: Ints, prompt: int = 3) -> dict[str, Any]:
    """One response of a request."""
    choice = {"index": 0, "text": 'a "b" {[\\', "routed_experts": text(npy_bytes(rows.astype(np.uint8)))}
    usage = {"prompt_tokens": prompt, "completion_tokens": len(rows) + 1 - prompt}
    return {"id": "cmpl-1", "choices": [choice], "usage": usage}


def vllm_responses(toy: Toy) -> dict[str, bytes]:
    """Responses as JSON Lines."""
    return {"routed.jsonl": "\n".join(json.dumps(vllm_response(toy, rows)) for rows in toy.requests()).encode()}


def sglang_response(rows: Ints, prompt: int = 3) -> dict[str, Any]:
    """One response of SGLang's own interface."""
    meta = {"prompt_tokens": prompt, "completion_tokens": len(rows) + 1 - prompt, "cached_tokens": 0}
    return {
        "text": "x",
        "output_ids": [1, 2],
        "meta_info": meta | {"routed_experts": text(rows.astype("<i4").tobytes())},
    }


def sglang_responses(toy: Toy) -> dict[str, bytes]:
    """Responses as a JSON list."""
    return {"routed.json": json.dumps([sglang_response(rows) for rows in toy.requests()], indent=1).encode()}


def dynamo_vllm(toy: Toy) -> dict[str, bytes]:
    """Responses of Dynamo before vLLM: raw bytes beside shape, start and dtype, in both places by turns."""

    def answer(number: int, rows: Ints) -> dict[str, Any]:
        data = text(rows.astype("<u2").tobytes())
        field = {"data": data, "shape": list(rows.shape), "start": 0, "dtype": "uint16"}
        holder: dict[str, Any] = {"routed_experts": field}
        usage = {"prompt_tokens": 3, "completion_tokens": len(rows) - 2}
        return {"choices": [{"index": 0}], "nvext": {"engine_data": holder} if number % 2 else holder, "usage": usage}

    return {"dynamo.json": json.dumps([answer(n, rows) for n, rows in enumerate(toy.requests())]).encode()}


def dynamo_sglang(toy: Toy) -> dict[str, bytes]:
    """Responses of Dynamo before SGLang, after a line that has no routed experts yet."""
    answers: list[dict[str, Any]] = [{"choices": [{"index": 0}]}]
    for rows in toy.requests():
        usage = {"prompt_tokens": 3, "completion_tokens": len(rows) - 2}
        nvext = {"routed_experts": sglang_response(rows)["meta_info"]["routed_experts"]}
        answers.append({"choices": [{"index": 0}], "nvext": nvext, "usage": usage})
    return {"dynamo.jsonl": "\n".join(map(json.dumps, answers)).encode()}


def lmdeploy_responses(toy: Toy) -> dict[str, bytes]:
    """Nested lists in answers of each of the three interfaces."""
    answers: list[dict[str, Any]] = []
    for number, rows in enumerate(toy.requests()):
        counts = {"prompt_tokens": 3, "completion_tokens": len(rows) - 2}
        field = {"routed_experts": rows.tolist()}
        if number % 3 == 0:
            answers.append({"text": "x", "output_ids": [1], "meta_info": counts | field})
        elif number % 3 == 1:
            answers.append({"choices": [{"index": 0} | field], "usage": counts})
        else:
            answers.append({"content": [{"text": "x"}], "usage": counts} | field)
    return {"lmdeploy.json": json.dumps(answers, indent=1).encode()}


def sglang_stat(toy: Toy, rank: int = 0) -> dict[str, bytes]:
    """Count by step, summed over ranks, with steps that were not used."""
    counts = np.zeros((7, toy.layers, toy.experts), np.int32)
    for step, part in enumerate(np.array_split(toy.ids, 5)):
        for index, layer in enumerate(toy.moe):
            counts[step, layer] = np.bincount(part[:, index].ravel(), minlength=toy.experts)
    value = {"rank": rank, "logical_count": counts, "average_utilization_rate_over_window": None}
    return {"expert_distribution_recorder_1.pt": torch_bytes(value)}


def sglang_records(toy: Toy, *, tokens: bool, maps: dict[int, Ints] | None = None) -> dict[str, bytes]:
    """One file per rank; records in no order, and ids padded to a width of 8."""
    rng = np.random.default_rng(toy.seed + 2)
    physical = toy.physical
    records: dict[int, list[dict[str, Any]]] = {rank: [] for rank in range(toy.ranks)}
    for number, rank, part in toy.shares():
        chosen = physical[part]
        counts = np.stack([np.bincount(layer[layer >= 0], minlength=toy.slots) for layer in chosen.swapaxes(0, 1)])
        record = {"forward_pass_id": number, "rank": rank, "gatherer_key": "primary"}
        record["global_physical_count"] = counts.astype(np.int32)
        if tokens:
            padded = np.full((toy.layers, len(part), 8), -1, np.int32)
            padded[:, :, : toy.top_k] = chosen.swapaxes(0, 1)
            record |= {"input_ids": part.tolist(), "positions": part.tolist(), "extend_seq_lens": [len(part)]}
            record |= {"forward_mode": 1 + (number > 11), "topk_ids_of_layer": padded}
        records[rank].append(record)
    return {
        f"expert_distribution_recorder_1_{rank}.pt": torch_bytes(
            {
                "records": [made[index] for index in rng.permutation(len(made))],
                "last_physical_to_logical_map": (maps or {}).get(rank, toy.maps),
            }
        )
        for rank, made in records.items()
    }


# By format: the files of a toy trace.
ENGINE_FILES: dict[str, Callable[[Toy], dict[str, bytes]]] = {
    "vllm_routed_experts": vllm_array,
    "vllm_routed_experts responses": vllm_responses,
    "vllm_routed_experts dynamo": dynamo_vllm,
    "sglang_routed_experts": sglang_responses,
    "sglang_routed_experts dynamo": dynamo_sglang,
    "lmdeploy_routed_experts": lmdeploy_responses,
    "sglang_stat": sglang_stat,
    "sglang_per_pass": lambda toy: sglang_records(toy, tokens=False),
    "sglang_per_token": lambda toy: sglang_records(toy, tokens=True),
}


def write_bundle(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files to a new folder; a single one is the bundle itself."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder if len(files) > 1 else folder / next(iter(files))
