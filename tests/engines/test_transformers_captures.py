"""Captures of every MoE code family of transformers: what is recorded is what its experts were called with."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.engines.captures import MODES, outcome
from tests.engines.tiny_models import code_families

if "MOE_PLACEMENT_ENGINES" not in os.environ:
    pytest.skip("minutes long: `make engines` runs it", allow_module_level=True)
torch: Any = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
transformers: Any = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")
if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24):
    pytest.skip("the families are those of transformers 5.24", allow_module_level=True)

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # for matrices as small as these
ENCODER = dict.fromkeys(MODES, "encoder_decoder")
UNSUPPORTED = dict.fromkeys(MODES, "router_unsupported")
REFUSED: dict[str, dict[str, str]] = {
    "doge": UNSUPPORTED,
    "ernie4_5_vl_moe": dict.fromkeys(MODES, "layer_twice"),
    "granite_docling": dict.fromkeys(MODES, "no_router"),
    "nllb_moe": ENCODER,
    "switch_transformers": ENCODER,
    "vitpose_backbone": dict.fromkeys(MODES, "no_router"),
    "zaya": UNSUPPORTED,
}


def test_these_are_all_families() -> None:
    """A release with more of them fails here first."""
    assert len(code_families()) == 77


@pytest.mark.parametrize("family", code_families())
def test_a_capture_is_exact_or_refused(family: str) -> None:
    """In a call, in generate() and in steps with a cache under either keyword, padded on the left."""
    expected = REFUSED.get(family.partition(".")[2], {})
    for mode in MODES:
        found = outcome(family, mode)
        if found.result != "none":
            assert (mode, found.result, found.detail) == (
                mode,
                *(("refused", expected[mode]) if expected else ("exact", "")),
            )
