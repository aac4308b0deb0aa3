"""From what a router returns to the experts it chose. The classes are those of transformers 5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traces.support.errors import InputError

__all__ = ["READS", "TUPLE_OF_THREE", "Read", "by_choice", "sole_integers"]

Read = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], tuple[Any, Any]]
"""From (module, args, kwargs, output) to (indices, weights or None), both (tokens, K) tensors."""

WHAT = (
    "Give choose=, a function from the router's output to the indices, or to (indices, weights). Before transformers"
    " 5.16, some routers returned logits only: use a newer version."
)


def _three(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
    """Read (logits, weights, indices, ...), which nearly all routers return; some versions have another order."""
    if isinstance(output, tuple) and len(output) > 2 and _is_integer(output[2]):
        return output[2], output[1]
    return sole_integers(module, args, kwargs, output)


TUPLE_OF_THREE: Read = _three


def _llama4(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
    """Read (scores, logits): the module keeps its indices to itself, so the same top-k of the same logits is taken."""
    scores, logits = output
    indices = logits.topk(module.top_k, dim=1).indices
    weights = scores.gather(1, indices)
    if not bool((scores.count_nonzero(dim=1) == weights.count_nonzero(dim=1)).all()):
        raise _unreadable(module, output)
    return indices, weights


def _jetmoe(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
    """Undo the sort by expert of (order, token of each entry, its weight, entries per expert, logits)."""
    import torch

    order, _, gates, sizes, _ = output
    experts = torch.arange(len(sizes), device=order.device).repeat_interleave(torch.tensor(sizes, device=order.device))
    indices, weights = torch.empty_like(order), torch.empty_like(gates)
    indices[order], weights[order] = experts, gates
    return indices.view(-1, module.top_k), weights.view(-1, module.top_k)


def _dbrx(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
    """Read what the experts are given: the router returns logits only."""
    names = ("hidden_states", "top_k_index", "top_k_weights")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return given["top_k_index"], given["top_k_weights"]


def _longcat(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
    """Read (logits, weights, indices), where indices from E on are experts that do nothing: missing entries."""
    indices, weights = _three(module, args, kwargs, output)
    return indices.masked_fill(indices >= module.num_experts, -1), weights


READS: dict[str, Read] = {
    "Llama4Router": _llama4,
    "JetMoeTopKGating": _jetmoe,
    "DbrxExperts": _dbrx,
    "LongcatFlashTopkRouter": _longcat,
}


def sole_integers(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
    """Read the output's only integer tensor, and its only tensor of floats of the same shape if there is one."""
    parts = [output] if hasattr(output, "dtype") else list(output) if isinstance(output, (tuple, list)) else []
    integers = [part for part in parts if _is_integer(part)]
    if len(integers) != 1:
        raise _unreadable(module, output)
    floats = [p for p in parts if hasattr(p, "dtype") and p.dtype.is_floating_point and p.shape == integers[0].shape]
    return integers[0], floats[0] if len(floats) == 1 else None


def by_choice(choose: Callable[[Any], Any]) -> Read:
    """Return a `Read` that asks the user's function."""

    def read(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> tuple[Any, Any]:
        chosen = choose(output)
        indices, weights = chosen if isinstance(chosen, tuple) and len(chosen) == 2 else (chosen, None)
        if not _is_integer(indices):
            detail = f"choose returned {_describe(indices)}, not a tensor of integers (tokens, K)."
            raise InputError.of("choose_output", "/choose", detail, "Return the indices of the chosen experts.")
        return indices, weights

    return read


def _is_integer(value: Any) -> bool:
    return hasattr(value, "dtype") and not (
        value.dtype.is_floating_point or value.dtype.is_complex or str(value.dtype) == "torch.bool"
    )


def _describe(output: Any) -> str:
    if isinstance(output, (tuple, list)):
        return f"({', '.join(map(_describe, output))})"
    if hasattr(output, "dtype"):
        return f"{str(output.dtype).removeprefix('torch.')}{list(output.shape)}"
    return type(output).__name__


def _unreadable(module: Any, output: Any) -> InputError:
    kind = type(module).__name__
    return InputError.of(
        "router_output", f"/{kind}", f"Can't tell the chosen experts in what {kind} returns: {_describe(output)}.", WHAT
    )
