"""What the messages say to people who gave the wrong thing: what it is, and what to do, in two sentences or three."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_ids
from traces import InputError, ModelLayout, Profile, Trace, load, save
from traces.formats import READERS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def refused(path: Path, **options: Any) -> tuple[str, str, str]:
    """Return code, detail and remedy of the only violation."""
    with pytest.raises(InputError) as error:
        Profile.of(load(path, **options))
    (found,) = error.value.violations
    return found.code, found.detail, found.remedy


def trace_file(folder: Path, layers: int = 3, experts: int = 16) -> Path:
    """Write a trace that does not state its experts."""
    ids = random_ids(0, 64, layers, experts)
    ids[0, 0] = [experts - 1, 0]
    np.savez(folder / "trace.npz", topk_ids=ids)
    return folder / "trace.npz"


@pytest.mark.parametrize("inner", [{}, {"text_config": {"num_experts": 4}}, {"time_step_limit": [0.0, float("inf")]}])
@pytest.mark.parametrize("format", [None, "jsonl"])
def test_a_config_is_no_trace(tmp_path: Path, inner: dict[str, Any], format: str | None) -> None:  # noqa: A002
    """It is called what it is, even where a format was forced, and belongs beside the trace."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | inner, indent=2))
    code, detail, remedy = refused(tmp_path / "config.json", format=format)
    assert code == "is_a_config"
    assert "config of a model" in detail
    assert "`model`" in remedy


def test_a_config_beside_the_trace_is_read(tmp_path: Path) -> None:
    """`model` takes the path of the config."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    trace = load(trace_file(tmp_path, layers=4, experts=8), model=tmp_path / "config.json")
    assert trace.layer_ids.tolist() == [0, 1, 2, 3]
    assert trace.num_experts == 8


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "x", "object": "chat.completion", "choices": [{"message": {"content": "hello"}}]},
        {"text": "hello", "meta_info": {"prompt_tokens": 3}},
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_answers_without_routed_experts(tmp_path: Path, answer: dict[str, Any], many: bool) -> None:
    """An answer of an engine is told as one, with how each engine is asked for routed experts."""
    (tmp_path / "answers.json").write_text(json.dumps([answer] * 3 if many else answer))
    code, detail, remedy = refused(tmp_path / "answers.json")
    assert code == "no_routed_experts"
    assert "no routed experts" in detail
    assert "`enable_return_routed_experts`" in remedy
    assert "`return_routed_experts`" in remedy


@pytest.mark.parametrize("format", ["vllm_routed_experts", "sglang_routed_experts"])
def test_answers_without_routed_experts_in_a_forced_format(tmp_path: Path, format: str) -> None:  # noqa: A002
    """The remedy is the same where the format was named."""
    answer = {"choices": [{"message": {"content": "hello"}}], "meta_info": {}}
    (tmp_path / "answers.json").write_text(json.dumps(answer))
    code, _, remedy = refused(tmp_path / "answers.json", format=format, model=ModelLayout.of(4), top_k=2)
    assert code == "zero_tokens"
    assert "`return_routed_experts`" in remedy


def test_a_config_with_other_layers(tmp_path: Path) -> None:
    """Both numbers of layers and the model's name are told."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    code, detail, remedy = refused(trace_file(tmp_path, layers=3), model=tmp_path / "config.json")
    assert code == "layer_count"
    assert re.search(r"has 3 layers, but the model \(mixtral\) has 4", detail)
    assert "the model that was recorded" in remedy


def test_a_config_with_fewer_experts(tmp_path: Path) -> None:
    """An id beyond the model's experts names both, and the model as what may be wrong."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InputError) as error:
        Profile.of(load(trace_file(tmp_path, layers=4), model=tmp_path / "config.json"))
    found = error.value.violations[0]
    assert found.code == "id_out_of_range"
    assert "must be below `num_experts` = 8" in found.detail
    assert "`model`" in found.remedy


def test_a_config_with_other_experts_than_the_file_states(tmp_path: Path) -> None:
    """A file that states its experts is compared when it is opened."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save(Trace.of(np.zeros((4, 4, 1), int), num_experts=60), tmp_path / "t.npz")
    code, detail, remedy = refused(tmp_path / "t.npz", model=tmp_path / "config.json")
    assert code == "num_experts_differ"
    assert "60 experts per layer, but the model (mixtral) has 8" in detail
    assert "`model`" in remedy


def test_routed_experts_of_a_model_with_fewer(tmp_path: Path) -> None:
    """Where opening finds the largest id, it is compared at once."""
    ids = np.zeros((8, 4, 2), np.uint8)
    ids[:, :, 1] = 11
    np.save(tmp_path / "routed.npy", ids)
    code, detail, _ = refused(tmp_path / "routed.npy", model=ModelLayout.of(4, num_experts=8))
    assert code == "num_experts_differ"
    assert "experts up to 11, but the model has 8" in detail


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("parket", "Did you mean parquet?"),
        ("sglang", "it is an engine, which writes sglang_routed_experts, sglang_stat"),
        ("vllm", "it is an engine, which writes vllm_eplb_stats, vllm_routed_experts"),
        ("pickle", "Formats are npz, parquet"),
    ],
)
def test_unknown_formats(tmp_path: Path, name: str, words: str) -> None:
    """The message says which name was meant, or which there are; that a format is rarely needed, too."""
    code, detail, remedy = refused(trace_file(tmp_path), format=name)
    assert code == "unknown_format"
    assert words in f"{detail} {remedy}"
    assert "Leave `format` out" in remedy


def test_unknown_content_is_shown(tmp_path: Path) -> None:
    """The first bytes tell people which file they gave."""
    (tmp_path / "notes.txt").write_text("Dear diary, today")
    code, detail, remedy = refused(tmp_path / "notes.txt")
    assert code == "unknown_format"
    assert "b'Dear diary, today'" in detail
    assert all(reader.name in remedy for reader in READERS)


@pytest.mark.parametrize(
    ("name", "words"),
    [("trace.np", "Did you mean 'trace.npz'?"), ("zzz", "Check the path."), ("no/such/trace.npz", "nor its folder")],
)
def test_missing_files(tmp_path: Path, name: str, words: str) -> None:
    """A name that nearly is one in the folder is offered; a missing folder is named."""
    trace_file(tmp_path)
    code, detail, remedy = refused(tmp_path / name)
    assert code == "file_missing"
    assert words in f"{detail} {remedy}"


def test_nothing_in_traces_names_an_option() -> None:
    """Errors name parameters in backticks; options belong to the command line, and engines' to their references."""
    allowed = {"moe-routing-trace-path", "expert-distribution-recorder-mode", "enable-return-routed-experts"}
    allowed |= {"save-tokens-per-expert-interval", "init-expert-location"}
    found = [
        f"{path.name}: --{option}"
        for path in sorted((ROOT / "traces").rglob("*.py"))
        for option in re.findall(r"--([a-z][a-z-]+)", path.read_text(encoding="utf-8"))
        if option not in allowed
    ]
    assert found == []
