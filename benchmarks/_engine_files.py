"""Large files of the formats that engines and data sets use, for `reading.py`; writers return the tokens in them."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ENGINE_FORMATS", "ENGINE_WHY"]

LAYERS, EXPERTS, TOP_K, SLOTS, BLOCK = range(3, 61), 256, 8, 288, 1024
STEPS_PER_FILE = 3000  # of TensorRT-LLM's statistics: a header names all tensors
ENGINE_WHY = {
    "megatron": "integers as text, in two passes",
    "policylang": "an object for every token and layer, which Python parses, in two passes",
    "flame": "one Parquet file per layer, whose lists are taken apart",
    "lmdeploy": "integers as text, dense layers included",
    "dynamo": "base64 in JSON: each byte is looked at as text, decoded, and checked, in two passes",
    "sglang chat": "base64 in JSON of int32, four times the bytes of an id that is kept, in two passes",
    "transformers": "the largest of 256 logits are chosen, and written to a file",
    "tensorrt raw": "int64, eight times the bytes of an id that is kept",
}


def block() -> npt.NDArray[np.int64]:
    """Return ids (BLOCK, L, K)."""
    rng = np.random.default_rng(0)
    return rng.random((BLOCK, len(LAYERS), EXPERTS), np.float32).argsort(axis=2)[:, :, :TOP_K]


def megatron(path: Path, size: int) -> int:
    """Write the router trace of one rank."""
    ids, steps = block(), 0
    records = []
    for n, layer in enumerate(LAYERS):
        record = {"stage": "pre_dispatch", "block": "decoder", "layer": layer, "rank": 0, "num_tokens": BLOCK}
        records.append(json.dumps(record | {"topk": TOP_K, "top_indices": ids[:, n].tolist()})[1:])
    with path.open("w") as file:
        while not steps or file.tell() < size:
            file.writelines(f'{{"step": {steps}, {record}\n' for record in records)
            steps += 1
    return steps * BLOCK


def eplb_stats(path: Path, size: int) -> int:
    """Write vLLM's EPLB statistics."""
    rng = np.random.default_rng(0)
    record = {"record_type": "eplb_load_stats", "version": 1, "step": 1, "num_ranks": 32}
    record |= {"expert_load": rng.integers(0, 5000, (len(LAYERS), SLOTS)).tolist()}
    line = json.dumps(record | {"p2l_map": [(np.arange(SLOTS) % EXPERTS).tolist()] * len(LAYERS)}) + "\n"
    with path.open("w") as file:
        for _ in range(max(1, size // len(line))):
            file.write(line)
    return 0


def llama(path: Path, size: int) -> int:
    """Write llama.cpp's activations."""
    ids = block()[:64]
    text = "".join(f"{layer},{expert}\n" for n, layer in enumerate(LAYERS) for expert in ids[:, n].ravel())
    with path.open("w") as file:
        file.write("layer,expert\n")
        for _ in range(max(1, size // len(text))):
            file.write(text)
    return 0


def policylang(path: Path, size: int) -> int:
    """Write MoE-PolicyLang's lines, a prompt per block."""
    ids = block()
    lines = [
        f'"t": {t}, "l": {layer}, "e": {ids[t, n].tolist()}, "s": null}}\n'
        for n, layer in enumerate(LAYERS)
        for t in range(BLOCK)
    ]
    prompts = max(1, size // (sum(map(len, lines)) + 12 * len(lines)))
    header = {"model_name": "m", "num_layers": len(LAYERS), "num_experts": EXPERTS, "top_k": TOP_K}
    with path.open("w") as file:
        file.write(json.dumps(header | {"num_entries": prompts * len(lines)}) + "\n")
        for prompt in range(prompts):
            file.writelines(f'{{"p": {prompt}, {line}' for line in lines)
    return prompts * BLOCK


def flame(path: Path, size: int) -> int:
    """Write FLAME-MoE's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, blocks = block().astype(np.int16), max(1, size // (len(LAYERS) * BLOCK * TOP_K * 4))
    schema = pa.schema({"indices": pa.list_(pa.int16()), "scores": pa.list_(pa.float16())})
    offsets = pa.array(np.arange(0, BLOCK * TOP_K + 1, TOP_K, dtype=np.int32))
    rng = np.random.default_rng(0)
    path.mkdir()
    for n, layer in enumerate(LAYERS):
        indices = pa.ListArray.from_arrays(offsets, pa.array(ids[:, n].ravel()))
        scores = pa.ListArray.from_arrays(offsets, pa.array(rng.random(BLOCK * TOP_K).astype(np.float16)))
        table = pa.table([indices, scores], schema=schema)
        with pq.ParquetWriter(
            path / f"layer_{layer:02}.parquet", schema, compression="none", use_dictionary=False
        ) as to:
            for start in range(0, blocks, 64):
                to.write_table(pa.concat_tables([table] * min(64, blocks - start)))
    return blocks * BLOCK


def transformers(path: Path, size: int) -> int:
    """Write router logits."""
    rng, layers = np.random.default_rng(0), len(LAYERS)
    rows = max(1, size // (layers * EXPERTS * 4 * 128)) * 128
    part = rng.random((128, EXPERTS), np.float32).tobytes()
    small: dict[str, Any] = {
        "attention_mask": np.ones((rows // 128, 128), np.int8),
        "top_k": TOP_K,
        "scoring_func": "softmax",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, value)
        with archive.open("router_logits.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (layers, rows, EXPERTS)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(layers * rows // 128):
                member.write(part)
    return rows


def tensorrt(path: Path, size: int, raw: bool) -> int:
    """Write TensorRT-LLM's statistics, or the experts of every token."""
    ids = block()
    shape = (BLOCK, TOP_K) if raw else (EXPERTS,)
    tensors = [ids[:, n].tobytes() if raw else np.full(EXPERTS, 5).tobytes() for n in range(len(LAYERS))]
    steps = max(1, size // (len(LAYERS) * len(tensors[0])))
    path.mkdir()
    name = "rank{}_raw.safetensors" if raw else "rank{}.safetensors"
    for rank, first in enumerate(range(0, steps, STEPS_PER_FILE)):
        header, end, here = {}, 0, min(STEPS_PER_FILE, steps - first)
        for step in range(here):
            for n, layer in enumerate(LAYERS):
                stop = end + len(tensors[n])
                header[f"{step}_{layer}"] = {"dtype": "I64", "shape": shape, "data_offsets": [end, stop]}
                end = stop
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (path / name.format(rank)).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _ in range(here):
                file.writelines(tensors)
    return steps * BLOCK if raw else 0


def answers(path: Path, size: int, kind: str) -> int:
    """Write answers of one block of tokens, one per line, with a row per layer of the model."""
    ids = np.zeros((BLOCK, LAYERS.stop, TOP_K), np.int64)
    ids[:, LAYERS.start :] = block()
    if kind == "lmdeploy":
        answer: dict[str, Any] = {
            "text": "x",
            "meta_info": {"completion_tokens": BLOCK, "routed_experts": ids.tolist()},
        }
    elif kind == "dynamo":
        data = base64.b64encode(ids.astype(np.uint8).tobytes()).decode()
        routed = {"data": data, "shape": ids.shape, "start": 0, "dtype": "uint8"}
        answer = {"choices": [{"index": 0, "text": "x"}], "nvext": {"routed_experts": routed}}
    else:
        data = base64.b64encode(ids.astype("<i4").tobytes()).decode()
        message = {"role": "assistant", "content": "x"}
        answer = {"choices": [{"index": 0, "message": message}], "sglext": {"routed_experts": data}}
    line = json.dumps(answer) + "\n"
    lines = max(1, size // len(line))
    with path.open("w") as file:
        for _ in range(lines):
            file.write(line)
    return lines * BLOCK


def tokens_per_expert(path: Path, size: int) -> int:
    """Write Megatron's tokens per expert of one rank."""
    counts = np.random.default_rng(0).integers(0, 5000, (4, EXPERTS)).tolist()
    lines = [json.dumps({"block": "decoder", "layer": layer, "tpe": counts})[1:] for layer in LAYERS]
    with path.open("w") as file:
        for iteration in range(max(1, size // sum(map(len, lines)))):
            file.writelines(f'{{"iter": {iteration}, {line}\n' for line in lines)
    return 0


def published(path: Path, size: int) -> int:
    """Write logical counts step by step, as SGLang publishes them."""
    step = json.dumps(np.random.default_rng(0).integers(1, 5000, (len(LAYERS), EXPERTS)).tolist())
    with path.open("w") as file:
        file.write('{"logical_count": [' + step)
        for _ in range(size // len(step)):
            file.write(", " + step)
        file.write("]}")
    return 0


ENGINE_FORMATS: dict[str, Callable[[Path, int], int]] = {
    "megatron": megatron,
    "vllm eplb stats": eplb_stats,
    "llama csv": llama,
    "policylang": policylang,
    "flame": flame,
    "transformers": transformers,
    "lmdeploy": partial(answers, kind="lmdeploy"),
    "dynamo": partial(answers, kind="dynamo"),
    "sglang chat": partial(answers, kind="sglang chat"),
    "tokens per expert": tokens_per_expert,
    "published counts": published,
    "tensorrt": lambda path, size: tensorrt(path, size, raw=False),
    "tensorrt raw": lambda path, size: tensorrt(path, size, raw=True),
}
