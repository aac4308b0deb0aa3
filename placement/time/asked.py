"""What a time model is asked for, and what is said of what it can't have."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from placement.time.exchange import Exchange
from placement.time.experts import ExpertKernel
from placement.time.machine import Machine
from traces import Violations

__all__ = ["FRAMEWORKS", "PHASES", "check_words", "notes_of"]

PHASES: Final = ("prefill", "decode")
FRAMEWORKS: Final = ("sglang", "tensorrt-llm", "vllm")


def check_words(asked: dict[str, tuple[str | None, tuple[str, ...]]]) -> None:
    """Refuse words that are not known, all of them at once.

    Parameters
    ----------
    asked : dict
        By parameter: the word, or None, and the words that are known.
    """
    found = Violations()
    for name, (word, known) in asked.items():
        if word is not None and word not in known:
            close = get_close_matches(word, known, n=1)
            guess = f" Did you mean {close[0]}?" if close else ""
            found.add(
                f"unknown_{name}", f"/{name}", f"{word!r:.60} is not known.{guess}", f"Give one of {', '.join(known)}."
            )
    found.raise_if_any()


def notes_of(
    kernels: tuple[ExpertKernel, ...], inside: Exchange, across: Exchange, machine: Machine, assumed: bool, name: str
) -> tuple[str, ...]:
    """Return what was assumed, a sentence each: where a data sheet stands in for measurements."""
    notes = [
        f"No data for experts in {kernel.dtype} on {kernel.gpu}: a roofline stands in, with a wider error."
        for kernel in kernels
        if not kernel.measured
    ]
    tiers = [("within a node", inside)] + ([("between nodes", across)] if machine.num_nodes > 1 else [])
    notes += [
        f"No data for {name} {tier} on {machine.name}: 70 % of the links' data sheet stands in."
        for tier, exchange in tiers
        if not exchange.measured
    ]
    if assumed:
        notes.append("Attention, router and shared experts are a roofline of their weights, without the KV cache.")
    return tuple(notes)
