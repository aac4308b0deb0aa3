"""vLLM's capture of routed experts and its answers are read; its own classes check the page's flags."""

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
from tests.engines.recipes import commands
from traces import ModelLayout, Trace

LAYERS, DENSE, TOP_K, PROMPT, COMPLETION = 5, 1, 3, 6, 4
TOKENS = PROMPT + COMPLETION - 1  # the last sampled token is not routed


def captured(experts: int, tmp_path: Path) -> tuple[np.ndarray[Any, Any], str]:
    """Return what vLLM's capturer holds of a batch (T, L, K), and as its server encodes it."""
    import io
    import logging

    torch: Any = pytest.importorskip("torch")
    context = SimpleNamespace(dp_metadata=None, batch_descriptor=SimpleNamespace(num_tokens=TOKENS))
    code = own(
        "vllm/model_executor/layers/fused_moe/routed_experts_capturer.py",
        "RoutedExpertsCapturer",
        "_get_routed_experts_shape",
        logger=logging.getLogger(),
        current_platform=SimpleNamespace(device_type="cpu"),
        get_forward_context=lambda: context,
        dbo_current_ubatch_token_offset=lambda: 0,
    )
    model = SimpleNamespace(
        get_total_num_hidden_layers=lambda: LAYERS,
        get_num_experts=lambda: experts,
        get_num_experts_per_tok=lambda: TOP_K,
        hf_text_config=SimpleNamespace(model_type="test"),
    )
    parallel = SimpleNamespace(data_parallel_rank=0, tensor_parallel_size=1)
    capturer = code.RoutedExpertsCapturer(64, SimpleNamespace(model_config=model, parallel_config=parallel))
    ids = np.random.default_rng(experts).random((TOKENS, LAYERS, experts)).argsort(axis=2)[..., :TOP_K]
    for layer in range(DENSE, LAYERS):
        capturer.capture(layer, torch.from_numpy(ids[:, layer]).int())
    held = capturer.snapshot_routing_data(TOKENS).numpy()
    assert held[:, DENSE:].tolist() == ids[:, DENSE:].tolist()
    pybase64 = importlib.import_module("pybase64")
    encode = own("vllm/utils/serial_utils.py", "numpy2base64", io=io, pybase64=pybase64)
    return held, encode.numpy2base64(held)


@pytest.mark.parametrize("experts", [16, 300])
@pytest.mark.parametrize("kind", ["chat", "completion", "array"])
def test_routed_experts_are_read(tmp_path: Path, experts: int, kind: str) -> None:
    """Ids of 8 and 16 bits, in answers that vLLM's own classes make and as an array, come back layer by layer."""
    engine("vllm")
    held, text = captured(experts, tmp_path)
    file = tmp_path / ("routed.npy" if kind == "array" else "responses.jsonl")
    if kind == "array":
        np.save(file, held)
    else:
        name = "chat_completion" if kind == "chat" else "completion"
        choice: dict[str, Any] = {"index": 0, "routed_experts": text, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": "x"}} if kind == "chat" else {"text": "x"}
        usage = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
        protocol = module(f"vllm.entrypoints.openai.{name}.protocol")
        kind_of = "ChatCompletionResponse" if kind == "chat" else "CompletionResponse"
        answer = getattr(protocol, kind_of)(id="1", created=1, model="m", choices=[choice], usage=usage)
        file.write_text(answer.model_dump_json() + "\n")
    trace = traces.load(file, model=ModelLayout.of(LAYERS, first_moe_layer=DENSE, num_experts=experts))
    assert isinstance(trace, Trace)
    assert trace.provenance.format == "vllm_routed_experts"
    ids = np.concatenate([batch.topk_ids for batch in trace.batches()])
    assert ids.tolist() == held[:, DENSE:].tolist()


def parsed(words: list[str]) -> Any:
    """Return vLLM's engine arguments for a command line of `vllm serve`."""
    code = module("vllm.engine.arg_utils")
    utils = module("vllm.utils.argparse_utils")
    module("vllm.platforms").current_platform.device_type = "cpu"  # with no GPU and no build for one, vLLM has none
    parser = code.EngineArgs.add_cli_args(utils.FlexibleArgumentParser(allow_abbrev=False))
    return code.EngineArgs.from_cli_args(parser.parse_args(["--model", *words]))


def test_the_page_records() -> None:
    """The command line that records is one of vLLM's, with its expert parallelism and its capture."""
    words = commands("vllm", "vllm serve")[0]
    made = parsed(words)
    assert made.enable_expert_parallel
    assert made.enable_return_routed_experts
    assert made.tensor_parallel_size == 8


def test_no_release_loads_a_map() -> None:
    """The fields of pull request 41141 are unknown to the release, as the page says; the page's others are known."""
    parallel = module("vllm.config.parallel")
    words = commands("vllm", "vllm serve")[1]
    given = json.loads(words[words.index("--eplb-config") + 1])
    theirs = {"initial_mapping_path", "disable_online_rebalancing"}
    assert theirs <= set(given)
    parallel.EPLBConfig(**{name: value for name, value in given.items() if name not in theirs})
    with pytest.raises(ValueError, match="initial_mapping_path"):
        parallel.EPLBConfig(**given)


def test_balancing_is_asynchronous_by_default() -> None:
    """As the page says: and then only with the default policy."""
    parallel = module("vllm.config.parallel")
    assert parallel.EPLBConfig().use_async
    assert parallel.EPLBConfig(step_interval=1_000_000_000).step_interval == 1_000_000_000
