"""Dynamo's answers with vLLM behind it, encoded by its own function, are read: the same ids."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traces
from tests.engines.harness import own
from traces import ModelLayout, Trace

LAYERS, EXPERTS, TOP_K, TOKENS = 4, 16, 2, 9


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_its_encoding_is_read(tmp_path: Path, dtype: str) -> None:
    """The base64 of raw bytes, with shape and dtype, in `nvext`."""
    code: Any = own(
        "dynamo/vllm/handlers.py",
        "_serialize_routed_experts",
        base64=base64,
        logger=logging.getLogger(),
        Any=Any,
        Optional=None,
        Dict=None,
    )
    ids = np.random.default_rng(1).random((TOKENS, LAYERS, EXPERTS)).argsort(axis=2)[..., :TOP_K].astype(dtype)
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 6, "completion_tokens": 4},
        "nvext": {"routed_experts": code._serialize_routed_experts(ids)},
    }
    file = tmp_path / "responses.jsonl"
    file.write_text(json.dumps(answer) + "\n")
    trace = traces.load(file, model=ModelLayout.of(LAYERS, num_experts=EXPERTS))
    assert isinstance(trace, Trace)
    assert np.concatenate([batch.topk_ids for batch in trace.batches()]).tolist() == ids.tolist()
