"""SGLang's answers with routed experts, made by its own classes, are read: the same ids, model layer by model layer."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import traces
from tests.engines.harness import engine, module, own
from traces import ModelLayout, Trace

LAYERS, DENSE, EXPERTS, TOP_K, PROMPT, COMPLETION = 5, 1, 16, 3, 6, 4
MODEL = ModelLayout.of(LAYERS, first_moe_layer=DENSE, num_experts=EXPERTS, top_k=TOP_K)


def routed(seed: int) -> tuple[np.ndarray[Any, Any], str]:
    """Return the experts of a request's tokens (T - 1, L, K), and as SGLang's detokenizer encodes them."""
    torch: Any = pytest.importorskip("torch")
    engine("sglang")
    pybase64 = importlib.import_module("pybase64")
    encode = own("sglang/srt/managers/detokenizer_manager.py", "_b64_encode_per_request", pybase64=pybase64)
    rng = np.random.default_rng(seed)
    ids = rng.random((PROMPT + COMPLETION - 1, LAYERS, EXPERTS)).argsort(axis=2)[..., :TOP_K].astype(np.int32)
    ids[:, :DENSE] = 0
    (text,) = encode._b64_encode_per_request([torch.from_numpy(ids)])
    return ids, text


def usage() -> dict[str, int]:
    """Return the tokens of a request."""
    total = PROMPT + COMPLETION
    return {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": total}


def check(file: Path, *wanted: np.ndarray[Any, Any]) -> None:
    """Check that the file is read as SGLang's, with the ids of these requests."""
    trace = traces.load(file, model=MODEL)
    assert isinstance(trace, Trace)
    assert trace.provenance.format == "sglang_routed_experts"
    assert list(trace.layer_ids) == list(range(DENSE, LAYERS))
    ids = np.concatenate([batch.topk_ids for batch in trace.batches()])
    assert ids.tolist() == np.concatenate(wanted)[:, DENSE:].tolist()


def test_generate(tmp_path: Path) -> None:
    """Answers of /generate carry the ids in `meta_info`."""
    made = [routed(seed) for seed in range(2)]
    file = tmp_path / "responses.jsonl"
    lines = [{"text": "x", "meta_info": {"id": "1", **usage(), "routed_experts": text}} for _, text in made]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(file, *(ids for ids, _ in made))


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_openai(tmp_path: Path, kind: str) -> None:
    """Answers of the OpenAI interface carry them in `sglext`, as SGLang's own response classes write it."""
    protocol = module("sglang.srt.entrypoints.openai.protocol")
    utils = own(
        "sglang/srt/entrypoints/openai/utils.py",
        "process_routed_experts_from_ret",
    )
    made, lines = [routed(seed) for seed in range(2)], []
    for _, text in made:
        asked = SimpleNamespace(return_routed_experts=True)
        encoded = utils.process_routed_experts_from_ret({"meta_info": {"routed_experts": text}}, asked)
        common = {"id": "1", "model": "m", "usage": usage(), "sglext": protocol.SglExt(routed_experts=encoded)}
        if kind == "chat":
            message = protocol.ChatMessage(role="assistant", content="x")
            choice = protocol.ChatCompletionResponseChoice(index=0, message=message, finish_reason="stop")
            answer = protocol.ChatCompletionResponse(choices=[choice], created=1, **common)
        else:
            choice = protocol.CompletionResponseChoice(index=0, text="x", finish_reason="stop")
            answer = protocol.CompletionResponse(choices=[choice], created=1, **common)
        lines.append(answer.model_dump_json())
    file = tmp_path / "responses.jsonl"
    file.write_text("\n".join(lines) + "\n")
    check(file, *(ids for ids, _ in made))
