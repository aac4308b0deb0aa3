"""Whether there is enough, and all of it: tokens per expert, sequences that repeat, a recorder's buffer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence, share
from traces.doctor.observing import Observation
from traces.provenance import Provenance

__all__ = ["duplicate_prompts", "too_few_tokens", "wrapped_buffer"]

ENOUGH, TOO_FEW = 100, 25  # tokens per expert: counting noise of 10 % and of 20 % in an expert's load
MANY_REPEATS = 0.1
DEFAULT_BUFFER = 1_000  # passes, of SGLang's recorder


def too_few_tokens(evidence: Evidence) -> Iterator[Finding]:
    """Tell loads that are mostly noise: so few assignments per expert that another recording shows others."""
    layers, experts = int(evidence.recorded.sum()), evidence.load.shape[1]
    if not layers or not evidence.is_counted:
        return
    each = float(evidence.load.sum()) / (layers * experts)
    if each >= ENOUGH:
        return
    unit, have, need = "assignments per layer", each * experts, float(ENOUGH * experts)
    if evidence.tokens is not None:
        per_token = float(evidence.load.sum()) / max(float(evidence.tokens.sum()), 1.0)
        unit, have = "tokens", float(evidence.tokens.max())
        need = math.ceil(ENOUGH * experts / max(per_token, 1e-9))
    yield Finding(
        code="too_few_tokens",
        severity="warning" if each < TOO_FEW else "note",
        detail=f"{have:,.0f} {unit} are {each:.1f} for each of {experts} experts: counting noise alone moves an "
        "expert's "
        f"load by {100 / math.sqrt(max(each, 1e-9)):.0f} %. A plan fits that noise, and does not hold on other tokens.",
        remedy=f"Record at least {need:,.0f} {unit}, of the traffic that is to be planned for.",
    )


def duplicate_prompts(seen: Observation) -> Iterator[Finding]:
    """Tell sequences whose rows are those of another one."""
    if seen.sequences is None:
        return
    again, among = seen.sequences.repeats()
    if not again:
        return
    yield Finding(
        code="duplicate_prompts",
        severity="warning" if again >= max(2, MANY_REPEATS * among) else "note",
        detail=f"{again:,} of {among:,} sequences ({share(again, among)}) repeat another one, row by row. Their tokens "
        "count several times, and lie in the fitted and in the held-out part: the figures on held-out tokens are too "
        "good.",
        remedy="Record every prompt once; leave benchmarks that send one prompt again and again.",
    )


def wrapped_buffer(provenance: Provenance) -> Iterator[Finding]:
    """Tell a recorder's buffer all of whose passes are used: older ones may be lost."""
    passes = provenance.full_buffer
    if passes is None:
        return
    default = " That is the default size." if passes == DEFAULT_BUFFER else ""
    yield Finding(
        code="wrapped_buffer",
        severity="warning" if passes == DEFAULT_BUFFER else "note",
        detail=f"All {passes:,} passes of the recorder's buffer are used.{default} It is a ring: if there were more "
        "passes, the first ones are lost, and the loads are those of the last ones alone, which may be decode only.",
        remedy="Dump before the buffer is full, or record with a recorder whose buffer has no end (SGLang: a buffer "
        "size of -1).",
    )
