"""Why a verdict is what it is, in sentences."""

from __future__ import annotations

from placement.advice.judging import LEAST_PER_EXPERT, LEAST_SEQUENCES, WORTH, Gain, Verdict
from placement.advice.sample import BLOCK, PassSample
from placement.time import TimeModel

__all__ = ["reasons_of"]

NEUTRAL_TOKENS = 16  # per rank; time.md of measured kernels: skew is neutral or helps below


def reasons_of(
    verdict: Verdict,
    gain: Gain,
    sample: PassSample,
    time: TimeModel,
    method: str,
    per_expert: float,
    notes: tuple[str, ...],
    *,
    held_out: bool,
    stall: float,
) -> tuple[str, ...]:
    """Return the reasons, the most important first.

    Parameters
    ----------
    verdict : Verdict
    gain : Gain
    sample : PassSample
        Of the tokens held out.
    time : TimeModel
    method : str
        That found the plan.
    per_expert : float
        Mean tokens of an expert in a layer, of those held out.
    notes : tuple of str
        What was assumed.
    held_out : bool
        Whether the plan was judged on other tokens than it was fitted on.
    stall : float
        Seconds that a synchronous rearrangement takes.
    """
    found = [_rule(verdict, gain, sample, per_expert, held_out=held_out)]
    parts = _parts(gain)
    found.append("Of a step, " + ", ".join(f"{name} {old:.4g} -> {new:.4g} ms" for name, old, new in parts) + ".")
    found.append(f"MoE layers are {gain.moe_share:.0%} of the step before: no placement changes the rest.")
    if time.machine.num_nodes > 1:
        old, new = gain.remote_before.mean(), gain.remote_after.mean()
        found.append(f"Copies of a token between nodes, per layer: {old:.3f} -> {new:.3f}.")
    if time.tokens_per_gpu <= NEUTRAL_TOKENS:
        detail = f"At {time.tokens_per_gpu} tokens per GPU, kernels read weights: few tokens more or less cost nothing."
        found.append(detail)
    found.append(f"The plan is that of {method}, the fastest on the tokens that it was fitted on.")
    if stall and gain.fraction > 0:
        found.append(
            f"Rearranging all at once stalls about {stall:.2g} s, which the gain pays back in "
            f"{_duration(stall / gain.fraction)}."
        )
    found += _sample(sample)
    return (*found, *notes)


def _rule(verdict: Verdict, gain: Gain, sample: PassSample, per_expert: float, *, held_out: bool) -> str:
    low, high = (f"{100 * end:+.1f} %" for end in gain.interval)
    over = [(100 * (high - low) / 2) for low, high in (gain.over_sequences, gain.over_model)]
    if verdict == "worth_it":
        return f"Even the lower end of the interval, {low}, is above {100 * WORTH:.1f} %, which a rearrangement costs."
    if verdict == "not_worth_it":
        if gain.interval[1] <= WORTH:
            return f"Even the upper end of the interval, {high}, is not above {100 * WORTH:.1f} %."
        if gain.fraction <= WORTH:
            return f"The gain is not above {100 * WORTH:.1f} %, which a rearrangement costs."
        return (
            f"The lower end of the interval, {low}, is not above {100 * WORTH:.1f} %: the gain is within what the "
            f"model (+-{over[1]:.1f} %) and the sample (+-{over[0]:.1f} %) leave open. Measure on the machine."
        )
    if not held_out:
        return "Nothing could be held out: the trace has too few sequences to split."
    what = "sequences" if sample.by_sequence else f"blocks of {BLOCK} tokens"
    if sample.sequences < LEAST_SEQUENCES:
        return f"Only {sample.sequences} {what} are held out; fewer than {LEAST_SEQUENCES} show nothing about others."
    if per_expert < LEAST_PER_EXPERT:
        return f"An expert has {per_expert:.1f} tokens per layer on average; below {LEAST_PER_EXPERT} loads are noise."
    return f"Over {sample.sequences} {what} the gain is known to +-{over[0]:.1f} % only: record more sequences."


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _parts(gain: Gain) -> list[tuple[str, float, float]]:
    names = ("dispatch", "experts", "combine")
    return [(name, float(getattr(gain.before, name).sum()), float(getattr(gain.after, name).sum())) for name in names]


def _sample(sample: PassSample) -> list[str]:
    what = "sequences" if sample.by_sequence else f"blocks of {BLOCK} tokens (the trace has no seq_id)"
    passes = "1 pass" if sample.passes == 1 else f"{sample.passes} passes"
    found = [
        f"Judged on {len(sample.tokens):,} tokens held out, {sample.sequences} {what}, as {passes} of "
        f"{sample.pass_tokens:,} tokens."
    ]
    if sample.scale > 1:
        found.append(
            f"All tokens held out make less than a pass: they stand for one {sample.scale:.3g} times as large. Loads "
            "are then less even than in a whole pass, before and after."
        )
    if sample.thinned > 1:
        found.append(f"One of {sample.thinned} sequences held out was taken.")
    return found
