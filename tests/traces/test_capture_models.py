"""Captures from transformers' own classes, small and with random weights: what is recorded is what the experts got."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from traces import Trace
from traces.capture import record

torch: Any = None
transformers: Any = None
VOCABULARY, END = 60, 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": END,
    "bos_token_id": 2,
}
LATENT: dict[str, Any] = {
    "q_lora_rank": None,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
}
GROUPS: dict[str, Any] = {"n_group": 4, "topk_group": 2}
# Class prefix: parameters of the configuration, E, K, layers.
MODELS: dict[str, tuple[dict[str, Any], int, int, list[int]]] = {
    "Mixtral": ({"num_local_experts": 4, "num_experts_per_tok": 2}, 4, 2, [0, 1, 2]),
    "Qwen2Moe": (
        {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "decoder_sparse_step": 2,
        },
        6,
        2,
        [1],
    ),
    "Qwen3Moe": (
        {
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "head_dim": 16,
            "mlp_only_layers": [0],
        },
        8,
        3,
        [1, 2],
    ),
    "Olmoe": ({"num_experts": 8, "num_experts_per_tok": 2}, 8, 2, [0, 1, 2]),
    "DeepseekV2": (LATENT | GROUPS | {"topk_method": "group_limited_greedy"}, 8, 3, [1, 2]),
    "DeepseekV3": (LATENT | GROUPS, 8, 3, [1, 2]),
    "GptOss": (
        {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 5},
        8,
        2,
        [0, 1, 2],
    ),
    "Glm4Moe": (
        {
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "head_dim": 16,
        },
        8,
        2,
        [1, 2],
    ),
    "Phimoe": ({"num_local_experts": 4, "num_experts_per_tok": 2}, 4, 2, [0, 1, 2]),
    "Llama4": (
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 24,
            "head_dim": 16,
            "attention_chunk_size": 32,
        },
        4,
        1,
        [1],
    ),
    "JetMoe": ({"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 16}, 4, 2, [0, 1, 2]),
    "GraniteMoe": ({"num_local_experts": 4, "num_experts_per_tok": 2}, 4, 2, [0, 1, 2]),
    "LongcatFlash": (
        LATENT
        | {
            "num_hidden_layers": 4,  # two attention blocks per layer
            "num_layers": 2,
            "ffn_hidden_size": 24,
            "expert_ffn_hidden_size": 16,
            "q_lora_rank": 16,
            "moe_topk": 3,
            "zero_expert_num": 3,
            "head_dim": 8,
        },
        8,
        3,
        [0, 1],
    ),
}


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load what takes seconds in the process that runs these tests, not in each that collects them."""
    global torch, transformers
    torch = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
    transformers = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")
    torch.set_num_threads(1)  # for matrices as small as these


def model_of(name: str) -> Any:
    """Build a model whose routers have clear preferences."""
    parameters = MODELS[name][0]
    suffix = "TextConfig" if name == "Llama4" else "Config"
    config = getattr(transformers, f"{name}{suffix}")(**(SIZES | parameters))
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for key, value in (*model.named_parameters(), *model.named_buffers()):
        if "correction_bias" in key or "embed_tokens" in key:
            value.data.normal_(0, 0.3)  # the selection then is not the top-k of the logits
        elif "experts" not in key and value.ndim > 1:
            value.data.mul_(5)
    return model


@contextmanager
def spied(model: Any) -> Iterator[dict[str, list[npt.NDArray[Any]]]]:
    """Yield what each experts module is given, by name, without hooks: its `forward` is replaced."""
    seen: dict[str, list[npt.NDArray[Any]]] = {}
    for name, module in model.named_modules():
        if not name.endswith(".experts"):
            continue

        def forward(*args: Any, _inner: Any = module.forward, _name: str = name, **kwargs: Any) -> Any:
            if len(args) > 1:
                seen.setdefault(_name, []).append(args[1].numpy().copy())
            return _inner(*args, **kwargs)

        module.forward = forward
    yield seen


def prompts(side: str) -> tuple[Any, Any]:
    """Three rows of 7, 4 and 1 tokens, padded to 7."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((7, 4, 1)):
        mask[row, slice(0, 7 - length) if side == "left" else slice(length, 7)] = 0
    return ids * mask, mask


def columns_of(trace: Trace) -> dict[str, npt.NDArray[Any]]:
    """Return all columns of a short trace."""
    batch = next(trace.batches(10_000))
    return {
        name: np.asarray(getattr(batch, name)) for name in ("topk_ids", "gate_weights", "seq_id", "token_pos", "phase")
    }


def alone(model: Any, name: str, tokens: list[int]) -> npt.NDArray[Any]:
    """Return the sorted experts (T, L, K) of one unpadded sequence, run by itself in one call without a cache."""
    _, num_experts, top_k, _ = MODELS[name]
    seen: list[npt.NDArray[Any]] = []
    handles = []
    for key, module in model.named_modules():
        if name == "Llama4" and key.endswith(".router"):
            handles.append(
                module.register_forward_hook(
                    lambda _, __, out: seen.append((out[0] > 0).numpy().nonzero()[1].reshape(-1, top_k))
                )
            )
        elif name == "JetMoe" and key.endswith("mlp.router.layer"):
            handles.append(
                module.register_forward_hook(lambda _, __, out: seen.append(out.topk(top_k).indices.numpy()))
            )
        elif name not in ("Llama4", "JetMoe") and key.endswith(".experts"):
            handles.append(module.register_forward_pre_hook(lambda _, args: seen.append(args[1].numpy())))
    with torch.no_grad():
        model(input_ids=torch.tensor([tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    ids = np.stack(seen, axis=1).astype(int)
    return np.sort(np.where(ids >= num_experts, -1, ids), axis=2)


@pytest.mark.parametrize(("name", "side"), [*((name, "right") for name in MODELS), ("Mixtral", "left")])
def test_forward_records_what_the_experts_got(name: str, side: str) -> None:
    """Indices in one call equal those that the experts received, without the padding; axes are the model's."""
    model = model_of(name)
    _, num_experts, top_k, layers = MODELS[name]
    ids, mask = prompts(side)
    with spied(model) as seen, record(model) as recording, torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    trace = recording.trace
    assert (trace.layer_ids.tolist(), trace.num_experts, trace.top_k) == (layers, num_experts, top_k)
    columns = columns_of(trace)
    assert columns["seq_id"].tolist() == [0] * 7 + [1] * 4 + [2]
    assert columns["token_pos"].tolist() == [*range(7), *range(4), 0]
    assert columns["phase"].tolist() == [0] * 12
    if name not in ("Llama4", "JetMoe"):  # their experts are not given indices
        given = np.stack([calls[0] for calls in seen.values()], axis=1)[mask.numpy().reshape(-1) != 0]
        assert np.array_equal(columns["topk_ids"], np.where(given >= num_experts, -1, given))
    for row, length in enumerate((7, 4, 1)):
        tokens = ids[row][mask[row] != 0].tolist()
        assert len(tokens) == length
        recorded = np.sort(columns["topk_ids"][columns["seq_id"] == row], axis=2)
        assert np.array_equal(recorded, alone(model, name, tokens))


@pytest.mark.parametrize("name", MODELS)
def test_generate_records_each_sequence_as_if_alone(name: str) -> None:
    """Over prefill and decode, every sequence has the experts that it has when run by itself, unpadded, in one call."""
    model = model_of(name)
    ids, mask = prompts("left")
    with record(model) as recording, torch.no_grad():
        output = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, eos_token_id=None
        )
    columns = columns_of(recording.trace)
    assert output.shape == (3, 13)
    for row, length in enumerate((7, 4, 1)):
        of_row = columns["seq_id"] == row
        tokens = output[row, 7 - length : -1].tolist()  # the last token that was sampled is not run
        assert columns["token_pos"][of_row].tolist() == list(range(length + 5))
        assert columns["phase"][of_row].tolist() == [0] * length + [1] * 5
        assert np.array_equal(np.sort(columns["topk_ids"][of_row], axis=2), alone(model, name, tokens))


def test_deepseek_v3_selection_is_not_the_top_k_of_its_logits() -> None:
    """The models above are such that reading logits would have given other experts: bias and groups decide."""
    model = model_of("DeepseekV3")
    logits: list[Any] = []
    gate = model.model.layers[1].mlp.gate
    handle = gate.register_forward_hook(lambda _, __, out: logits.append(out[0].topk(3).indices.numpy()))
    ids, mask = prompts("right")
    with record(model) as recording, torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    handle.remove()
    recorded = columns_of(recording.trace)["topk_ids"][:, 0]
    by_logits = logits[0][mask.numpy().reshape(-1) != 0]
    assert not np.array_equal(np.sort(recorded, axis=1), np.sort(by_logits, axis=1))


def test_gate_weights_belong_to_their_experts() -> None:
    """Weights come in the order of the indices: Mixtral's are the softmax over the chosen."""
    model = model_of("Mixtral")
    logits: list[Any] = []
    handle = model.model.layers[2].mlp.gate.register_forward_hook(lambda _, __, out: logits.append(out[0]))
    ids, mask = prompts("right")
    with record(model) as recording, torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    handle.remove()
    columns = columns_of(recording.trace)
    chosen = torch.from_numpy(columns["topk_ids"][:, 2].astype(np.int64))
    expected = logits[0][mask.reshape(-1) != 0].gather(1, chosen).softmax(dim=1).numpy()
    np.testing.assert_allclose(columns["gate_weights"][:, 2], expected, rtol=1e-5)
