"""How long a synchronous rearrangement takes."""

import pytest

from placement.advice.stalling import stall_s
from placement.time import TimeModel


def time_of(machine: str) -> TimeModel:
    """Return a model of DeepSeek-V2-Lite's decode on a machine."""
    return TimeModel.of(machine, "deepseek-v2-lite", phase="decode")


def test_stall_is_of_bytes_over_what_engines_reach() -> None:
    """Published: 250 ms of 26 layers with 8 slots in a node; between nodes by engine; no more than a slow link."""
    assert stall_s(time_of("h100:1x8"), 8) == pytest.approx(0.25, rel=0.01)
    assert stall_s(time_of("h100:1x8"), 8, 0.5) == pytest.approx(0.125, rel=0.01)
    vllm, sglang = (stall_s(time_of("h100:2x4"), 8, engine=name) for name in ("vllm", "sglang"))
    assert vllm == stall_s(time_of("h100:2x4"), 8)
    assert vllm / sglang == pytest.approx(12.8 / 1.53)
    assert stall_s(time_of("h100:2x4"), 8, engine="sglang:static") == sglang
    assert stall_s(time_of("h100:2x4@2"), 8) == pytest.approx(vllm * 1.53 / (0.7 * 2 / 4))
