"""What a layer does beside its routed experts: attention, router and shared experts, by a roofline of their weights."""

from __future__ import annotations

from placement.time.gpus import Gpu
from traces.model.shape import WEIGHT_BYTES, ModelShape

__all__ = ["REST_ERROR", "rest_ms"]

REST_ERROR = 0.3  # of a roofline that does not know the length of the context
LAUNCH_MS = {"prefill": 0.1, "decode": 0.02}


def rest_ms(gpu: Gpu, shape: ModelShape, tokens: float, phase: str) -> float:
    """Return milliseconds per layer.

    Parameters
    ----------
    gpu : Gpu
    shape : ModelShape
    tokens : float
        Of one rank in a pass.
    phase : {"prefill", "decode"}
    """
    weights = shape.attention_weights + 3 * shape.hidden_size * shape.shared_width
    weights += shape.hidden_size * shape.num_experts  # the router
    dtype = shape.weight_dtype if shape.weight_dtype.startswith("fp8") else "bfloat16"
    memory = weights * WEIGHT_BYTES[dtype] / (0.8 * gpu.hbm_gb_s * 1e6)
    compute = 2 * tokens * weights / (0.6 * gpu.peak_tflops(dtype) * 1e9)
    return LAUNCH_MS[phase] + max(memory, compute)
