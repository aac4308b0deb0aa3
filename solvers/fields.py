"""Fields that several requests have, each with its range, unit and help: declared once."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, Unit, doc

from traces.support.words import HoldOutBy

__all__ = ["MAX_SLOTS", "MAX_TOKENS", "ExpertBytes", "HoldOutOf", "RedundantExperts", "SlotsPerGpu", "TokensPerGpu"]

MAX_SLOTS = 32_767
MAX_TOKENS = 1_000_000

SlotsPerGpu = Annotated[
    int | None, Ge(1), Le(MAX_SLOTS), doc("Expert slots per GPU and layer; E / G, rounded up, by default.")
]
RedundantExperts = Annotated[
    int | None, Ge(0), Le(MAX_SLOTS), doc("Slots of a layer beyond one per expert, all GPUs together.")
]
ExpertBytes = Annotated[
    int | None, Ge(1), Unit("bytes"), doc("Size of one expert's weights: for budgets and the GPUs' memory.")
]
TokensPerGpu = Annotated[
    int | None,
    Ge(1),
    Le(MAX_TOKENS),
    Unit("tokens"),
    doc("Tokens of a rank in a forward pass; 4,096 in prefill and 128 in decode by default."),
]
HoldOutOf = Annotated[
    HoldOutBy | None,
    doc(
        "What the share is of: sequences (default), time (the end of the recording), or source (whole files, data sets "
        "or tasks)."
    ),
]
