"""From a plan that runs and one that was found to an advice: the gain on tokens held out, the verdict, and why."""

from __future__ import annotations

from dataclasses import dataclass

from placement import Plan
from placement.advice.judging import Gain, judge_gain, verdict_of
from placement.advice.stalling import stall_s
from placement.advice.timing import PlanOnPasses
from placement.advice.without_ep import FOR_EXPERTS, Alternative, fits, weights_gb
from placement.time import TimeModel
from solvers.advising.advice import Advice
from solvers.advising.reasons import reasons_of
from solvers.judging.judge import Judge
from traces import Trace

__all__ = ["Change", "advice_of"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A plan that runs and one that was found, timed on the same tokens.

    Attributes
    ----------
    running, found : Plan
    method : str
        That found the plan.
    trace : Trace
        That both are of.
    held : Judge
        Of the tokens that the gain is judged on.
    held_out : bool
        Whether the plan was fitted on other tokens than these.
    gain : Gain
    """

    running: Plan
    found: Plan
    method: str
    trace: Trace
    held: Judge
    held_out: bool
    gain: Gain

    @classmethod
    def of(
        cls, running: Plan, found: Plan, *, method: str, trace: Trace, held: Judge, held_out: bool, seed: int
    ) -> Change:
        """Judge one plan against the other."""
        time, sample = held.time, held.sample
        before, after = (PlanOnPasses(plan, sample, time, held.travel, by_group=True) for plan in (running, found))
        gain = judge_gain(before, after, time, sample, seed=seed)
        return cls(running=running, found=found, method=method, trace=trace, held=held, held_out=held_out, gain=gain)


def advice_of(
    change: Change, alternatives: tuple[Alternative, ...], notes: tuple[str, ...], engine: str | None
) -> Advice:
    """Return the advice that follows from a change.

    Parameters
    ----------
    change : Change
    alternatives : tuple of Alternative
    notes : tuple of str
        What was assumed.
    engine : str or None
        That would move the experts.
    """
    gain, time, sample, found = change.gain, change.held.time, change.held.sample, change.found
    choices = len(sample.tokens) * change.trace.top_k / change.trace.num_experts
    verdict = verdict_of(gain, sample.sequences if change.held_out else 0, choices)
    notes = (*_memory_note(time, change.running, found), *notes, *_layers_note(time, change.trace))
    moved = float((change.running.physical_to_logical_map != found.physical_to_logical_map).mean())
    return Advice(
        verdict=verdict,
        step_ms_before=gain.step_ms_before,
        step_ms_after=gain.step_ms_after,
        gain_fraction=gain.fraction,
        gain_interval=gain.interval,
        moe_share=gain.moe_share,
        reasons=reasons_of(
            verdict,
            gain,
            sample,
            time,
            change.method,
            choices,
            notes,
            held_out=change.held_out,
            stall=stall_s(time, found.slots_per_gpu, moved, engine),
        ),
        alternatives=alternatives,
        phase=time.phase,
        machine=time.machine.name,
        model=time.model.name,
        plan=found,
        gain=gain,
    )


def _layers_note(time: TimeModel, trace: Trace) -> tuple[str, ...]:
    whole = len(time.model.layout.moe_layers)
    if trace.num_layers == whole:
        return ()
    return (f"The step is of the {trace.num_layers} MoE layers that were recorded; {time.model.name} has {whole}.",)


def _memory_note(time: TimeModel, running: Plan, found: Plan) -> tuple[str, ...]:
    """Say of the plan that runs, or else of the one that was found, that its weights don't fit: it can't run so."""
    for plan, what in ((running, "the plan that runs"), (found, "the plan that was found")):
        gb = weights_gb(time, plan.slots_per_gpu)
        if not fits(time, gb):
            least = min(gpu.memory_gb for gpu in time.machine.gpus)
            return (
                f"Under {what}, experts take {gb:.0f} GB of a GPU in {time.weight_dtype}, and of its {least:.0f} GB "
                f"{FOR_EXPERTS:.0%} are theirs at most: it can't run so. Check `machine` and `weight_dtype`.",
            )
    return ()
