"""Modules with routers to capture from; they need torch, so tests load this as they run."""

from __future__ import annotations

import types
from typing import Any

import torch

__all__ = ["Decoder", "Layer"]


class Layer(torch.nn.Module):
    """A plain layer whose gate returns logits, as layers did before transformers 5."""

    def __init__(self, top_k: int = 2, experts: int = 4) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(8, experts)
        self.top_k = top_k

    def forward(self, hidden: Any) -> Any:
        weights, chosen = self.gate(hidden).softmax(-1).topk(self.top_k)
        self.used = chosen
        return hidden + weights.sum(-1, keepdim=True)


class Decoder(torch.nn.Module):
    """A model of one layer whose cache comes and goes by a keyword of its own."""

    KEYWORDS = ("cache", "past_key_values", "cache_params")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.layers = torch.nn.ModuleList([Layer()])

    def forward(self, input_ids: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        cache = kwargs[self.name]
        hidden = torch.nn.functional.one_hot(input_ids % 8, 8).float()
        cache.update(hidden[:, None], hidden[:, None], 0)
        self.layers[0](hidden.reshape(-1, 8))
        return types.SimpleNamespace(**{self.name if self.name in self.KEYWORDS else "state": cache})
