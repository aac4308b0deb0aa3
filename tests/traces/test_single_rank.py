"""Recordings of one rank only, in the files of engines: the doctor tells them, and a plan's line does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from tests.builders.cli import command, document
from tests.engine_files import Toy, sglang_records, write_bundle
from tests.torch_files import torch_bytes
from traces import Profile, Trace, check, load

LAYERS, RANKS, EACH, EXPERTS = 3, 4, 6, 16
SLOTS = RANKS * EACH
RNG = np.random.default_rng(5)
MAPS = np.stack([RNG.permutation(np.arange(SLOTS) % EXPERTS) for _ in range(LAYERS)])
LOADS = RNG.integers(100, 900, (LAYERS, SLOTS))
Ints = npt.NDArray[np.int64]
Write = Callable[..., Path]


def of_ranks(*ranks: int) -> Ints:
    """Return the tokens of the slots, those of other ranks 0."""
    there = np.isin(np.arange(SLOTS) // EACH, ranks)
    return np.where(there, LOADS, 0)


def vllm(path: Path, counts: Ints, maps: Ints = MAPS) -> Path:
    """Statistics of one step."""
    record = {"record_type": "eplb_load_stats", "version": 1, "step": 1, "expert_load": counts.tolist()}
    file = path / "stats.jsonl"
    file.write_text(json.dumps(record | {"p2l_map": maps.tolist()}) + "\n")
    return file


def sglang(path: Path, counts: Ints, maps: Ints = MAPS) -> Path:
    """One pass of ranks 0 and 1, of which the first one counted all."""
    for rank in (0, 1):
        record: dict[str, Any] = {"forward_pass_id": 3, "rank": rank, "gatherer_key": "primary"}
        record["global_physical_count"] = (counts if rank == 0 else 0 * counts).astype(np.int32)
        (path / f"r_{rank}.pt").write_bytes(torch_bytes({"records": [record], "last_physical_to_logical_map": maps}))
    return path


def ascend(path: Path, counts: Ints, maps: Ints = MAPS) -> Path:
    """Heat of every device, and the map."""
    np.save(path / "moe_load.npy", counts.reshape(LAYERS, RANKS, EACH))
    layers = [
        {
            "layer_id": layer,
            "device_count": RANKS,
            "device_list": [
                {"device_id": device, "device_expert": row.tolist()}
                for device, row in enumerate(held.reshape(RANKS, EACH))
            ],
        }
        for layer, held in enumerate(maps)
    ]
    (path / "map.json").write_text(json.dumps({"moe_layer_count": LAYERS, "layer_list": layers}))
    return path


@pytest.mark.parametrize("write", [vllm, sglang, ascend])
def test_the_slots_of_one_rank_behind_any_map(tmp_path: Path, write: Write) -> None:
    """The experts of a rank lie anywhere once a map has dealt them out; its slots are an aligned share."""
    diagnosis = check(write(tmp_path, of_ranks(2)))
    (finding,) = [one for one in diagnosis if one.code == "single_rank"]
    assert "slots 12-17 of 24" in finding.detail
    assert "rank 2 of 4" in finding.detail
    assert finding.severity == "warning"
    assert diagnosis.line is not None
    assert "the slots of rank 2 only" in diagnosis.line


@pytest.mark.parametrize("write", [vllm, sglang, ascend])
def test_the_slots_of_all_ranks(tmp_path: Path, write: Write) -> None:
    """Nothing is told where every rank's slots have tokens."""
    assert "single_rank" not in check(write(tmp_path, of_ranks(*range(RANKS)))).codes


@pytest.mark.parametrize("write", [vllm, sglang, ascend])
def test_idle_replicas_are_no_rank(tmp_path: Path, write: Write) -> None:
    """Slots of a rank that have no tokens, where every expert has some elsewhere."""
    maps = np.tile(np.arange(SLOTS) % EXPERTS, (LAYERS, 1))
    assert "single_rank" not in check(write(tmp_path, of_ranks(0, 1, 2), maps)).codes


def per_pass(toy: Toy) -> dict[str, bytes]:
    """SGLang's counts of every rank."""
    return sglang_records(toy, tokens=False)


def per_token(toy: Toy) -> dict[str, bytes]:
    """SGLang's tokens of every rank."""
    return sglang_records(toy, tokens=True)


@pytest.mark.parametrize("files", [per_pass, per_token])
def test_the_file_of_rank_0_alone(tmp_path: Path, files: Callable[[Toy], dict[str, bytes]]) -> None:
    """A rank's file holds its own tokens, of all experts: only that the others are not there tells it."""
    whole = files(Toy())
    assert "single_rank" not in check(write_bundle(tmp_path / "whole", whole)).codes
    first = dict(list(whole.items())[:1])
    (finding,) = [one for one in check(write_bundle(tmp_path / "first", first)) if one.code == "single_rank"]
    assert finding.detail.startswith("Only rank 0's file is there")
    assert "files of all ranks" in finding.remedy


def test_a_saved_profile_keeps_what_it_was_counted_from(tmp_path: Path) -> None:
    """Rank 0's file alone is told of its profile, too; with that of another rank, they are all."""
    files = per_token(Toy(ranks=2))
    profiles = []
    for number, (name, content) in enumerate(files.items()):
        trace = load(write_bundle(tmp_path / f"rank{number}", {name: content}))
        assert isinstance(trace, Trace)
        Profile.of(trace).save(tmp_path / f"{number}.npz")
        profiles.append(Profile.load_file(tmp_path / f"{number}.npz"))
    assert "single_rank" in check(tmp_path / "0.npz").codes
    assert "single_rank" not in check(profiles[0] + profiles[1]).codes


@pytest.mark.parametrize("name", ["rank0.safetensors", "rank0_raw.safetensors"])
def test_the_line_before_a_plan_and_the_json(tmp_path: Path, name: str) -> None:
    """Rank 0's statistics or tokens of TensorRT-LLM alone are told by `check --json`, and before a plan."""
    rng = np.random.default_rng(0)
    raw = rng.random((400, 8)).argsort(axis=1)[:, :2].astype(np.int32)
    counts = np.bincount(raw.ravel(), minlength=8).astype(np.int64)
    save_file({"0_3": raw if "raw" in name else counts}, tmp_path / name)
    (tmp_path / "meta_info.json").write_text(json.dumps({"num_experts": 8, "num_experts_per_token": 2}))
    told: list[dict[str, Any]] = document("check", tmp_path)["findings"]
    assert [(one["code"], one["severity"]) for one in told if one["code"] == "single_rank"] == [
        ("single_rank", "warning")
    ]
    solved = command("solve", tmp_path, "--topology", "1x4", "--solver", "contiguous", "--output", tmp_path / "p.json")
    assert "rank 0's file only" in solved.stderr
