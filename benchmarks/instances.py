"""The instances that methods are compared on: frozen specifications by name.

An instance is a trace (the sample, a synthetic family, or a recorded one from the folder in ``MOE_PLACEMENT_DATA``), a
topology, slots, a load cap and the way tokens travel. A name, once in use, keeps its meaning: change an instance by
adding another one. ``python benchmarks/instances.py`` lists them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import placement
import traces
from placement.problem.objective import Dedup
from traces.synthetic import Synthetic, generate

__all__ = ["INSTANCES", "Instance", "MissingTraceError", "listing"]

SAMPLE = Path(__file__).parent.parent / "examples" / "tiny_moe" / "tiny_moe.npz"
DATA = "MOE_PLACEMENT_DATA"


class MissingTraceError(Exception):
    """The recorded trace of an instance is not on this machine."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A problem to compare methods on, with the tokens that its plans are judged by.

    Attributes
    ----------
    source : Synthetic or str
        Parameters of a synthetic trace; ``"sample"``; or a file's name in the folder of recorded traces.
    topology : str
    slots_per_gpu : int
        Slots per GPU and layer; 0 for the fewest.
    load_cap : float or None
    dedup : {"none", "gpu", "node"} or None
        Dispatch with this deduplication; None for context-coherent execution.
    """

    source: Synthetic | str
    topology: str
    slots_per_gpu: int = 0
    load_cap: float | None = None
    dedup: Dedup | None = None

    def parts(self) -> tuple[traces.Trace, traces.Trace]:
        """Return the tokens to fit (even ``seq_id``) and those held out (odd).

        Raises
        ------
        MissingTraceError
            If the trace is a recorded one that is not there.
        """
        if isinstance(self.source, Synthetic):
            return generate(self.source).split(0.5)
        path = SAMPLE
        if self.source != "sample":
            folder = os.environ.get(DATA)
            if folder is None or not (path := Path(folder) / self.source).exists():
                raise MissingTraceError(f"{self.source} is not in the folder {DATA} ({folder or 'not set'})")
        trace = traces.load(path)
        assert isinstance(trace, traces.Trace)
        return trace.split(0.5)

    def problem(self, fit: traces.Trace) -> placement.Problem:
        """Return the problem on the tokens to fit."""
        objective = placement.Objective()
        if self.dedup is not None:
            objective = placement.Objective(execution="dispatch", dedup=self.dedup)
        constraints = placement.Constraints(load_cap=self.load_cap)
        topology = placement.Topology.parse(self.topology)
        return placement.Problem(traces.Profile.of(fit), topology, self.slots_per_gpu, objective, constraints)

    def evaluate(self, plan: placement.Plan, tokens: traces.Trace) -> placement.Evaluation:
        """Replay tokens as the instance has them travel."""
        topology = placement.Topology.parse(self.topology)
        if self.dedup is None:
            return placement.evaluate(plan, tokens, topology)
        return placement.evaluate(plan, tokens, topology, execution="dispatch", dedup=self.dedup)

    def __str__(self) -> str:
        if isinstance(self.source, Synthetic):
            source, made = "synthetic", self.source
            source += f" {made.num_layers} x {made.num_experts}, top-{made.top_k}, {made.num_tokens:,} tokens"
            source += f", {made.limit} of {made.groups} groups" if made.groups > 1 else ""
        else:
            source = "sample trace" if self.source == "sample" else self.source
        slots = f", {self.slots_per_gpu} slots per GPU" if self.slots_per_gpu else ""
        cap = "no load cap" if self.load_cap is None else f"load cap {self.load_cap:g}"
        travel = "context-coherent" if self.dedup is None else f"dispatch, dedup {self.dedup}"
        return f"{source}; {self.topology}{slots}; {cap}; {travel}"


# Sizes of models in use. Half of the tokens are fitted.
MIXTRAL = Synthetic(num_layers=32, num_experts=8, top_k=2, num_tokens=20_000)
SMALL = Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=10_000)
MEDIUM = Synthetic(num_layers=24, num_experts=32, top_k=4, num_tokens=50_000)
LITE = Synthetic(num_layers=26, num_experts=64, top_k=6, num_tokens=50_000)
V3 = Synthetic(num_layers=58, num_experts=256, top_k=8, num_tokens=50_000)
QWEN = Synthetic(num_layers=94, num_experts=128, top_k=8, num_tokens=50_000)
KIMI = Synthetic(num_layers=61, num_experts=384, top_k=8, num_tokens=50_000)
LIMITED = replace(V3, groups=8, group_limit=4)  # as DeepSeek-V3 routes
LONG = replace(LIMITED, num_tokens=60_000, tokens_per_sequence=300, seed=5)
WIDE = Synthetic(num_layers=92, num_experts=896, top_k=16, num_tokens=30_000, seed=6)
DEEPSEEK, GPT_OSS = "deepseek_v2_lite.npz", "gpt_oss_20b.npz"

INSTANCES: dict[str, Instance] = {
    # The sample trace, 8 x 32, top-2: seconds.
    "sample_1x4": Instance(source="sample", topology="1x4"),
    "sample_1x4_cap": Instance(source="sample", topology="1x4", load_cap=1.05),
    "sample_2x2_cap": Instance(source="sample", topology="2x2", load_cap=1.05),
    "sample_2x2_fanout": Instance(source="sample", topology="2x2", dedup="node"),
    "sample_2x2_replicas": Instance(source="sample", topology="2x2", slots_per_gpu=10, dedup="node"),
    "sample_2x2_decode": Instance(source="sample", topology="2x2", slots_per_gpu=10, dedup="none"),
    # Few experts: proofs, and the integer programmes.
    "4x16_1x4": Instance(source=SMALL, topology="1x4"),
    "32x8_1x4": Instance(source=MIXTRAL, topology="1x4"),
    "32x8_2x2": Instance(source=MIXTRAL, topology="2x2"),
    "32x8_1x4_cap": Instance(source=MIXTRAL, topology="1x4", load_cap=1.3),
    # Middle sizes.
    "24x32_1x4": Instance(source=MEDIUM, topology="1x4"),
    "24x32_1x8_cap": Instance(source=MEDIUM, topology="1x8", load_cap=1.1),
    "26x64_1x4_cap": Instance(source=LITE, topology="1x4", load_cap=1.05),
    "26x64_1x8_cap": Instance(source=LITE, topology="1x8", load_cap=1.05),
    "26x64_2x4_cap": Instance(source=LITE, topology="2x4", load_cap=1.05),
    "26x64_1x8_fanout": Instance(source=LITE, topology="1x8", load_cap=1.05, dedup="gpu"),
    "26x64_2x4_replicas": Instance(source=LITE, topology="2x4", slots_per_gpu=9, dedup="node"),
    # Scale.
    "58x256_8x8_cap": Instance(source=V3, topology="8x8", load_cap=1.1),
    "58x256_8x8_replicas": Instance(source=V3, topology="8x8", slots_per_gpu=5, dedup="node"),
    "58x256_8x8_groups": Instance(source=LIMITED, topology="8x8", slots_per_gpu=5, dedup="node"),
    "58x256_8x8_decode": Instance(source=V3, topology="8x8", slots_per_gpu=5, dedup="none"),
    "58x256_8x8_sequences": Instance(source=LONG, topology="8x8", slots_per_gpu=5, dedup="node"),
    "92x896_1x72_replicas": Instance(source=WIDE, topology="1x72", slots_per_gpu=13, dedup="gpu"),
    "94x128_4x8_cap": Instance(source=QWEN, topology="4x8", load_cap=1.1),
    "61x384_8x8_cap": Instance(source=KIMI, topology="8x8", load_cap=1.1),
    # Recorded traces, where they are.
    "deepseek_1x4": Instance(source=DEEPSEEK, topology="1x4"),
    "deepseek_1x4_cap": Instance(source=DEEPSEEK, topology="1x4", load_cap=1.02),
    "deepseek_1x8": Instance(source=DEEPSEEK, topology="1x8"),
    "deepseek_1x8_cap": Instance(source=DEEPSEEK, topology="1x8", load_cap=1.02),
    "deepseek_2x4_cap": Instance(source=DEEPSEEK, topology="2x4", load_cap=1.02),
    "deepseek_1x8_fanout": Instance(source=DEEPSEEK, topology="1x8", load_cap=1.02, dedup="gpu"),
    "deepseek_2x4_replicas": Instance(source=DEEPSEEK, topology="2x4", slots_per_gpu=9, dedup="node"),
    "deepseek_4x4_replicas": Instance(source=DEEPSEEK, topology="4x4", slots_per_gpu=5, dedup="node"),
    "gpt_oss_1x4": Instance(source=GPT_OSS, topology="1x4"),
    "gpt_oss_1x4_cap": Instance(source=GPT_OSS, topology="1x4", load_cap=1.02),
    "gpt_oss_1x8": Instance(source=GPT_OSS, topology="1x8"),
    "gpt_oss_1x8_cap": Instance(source=GPT_OSS, topology="1x8", load_cap=1.02),
    "gpt_oss_1x8_loose": Instance(source=GPT_OSS, topology="1x8", load_cap=1.1),
    "gpt_oss_1x8_fanout": Instance(source=GPT_OSS, topology="1x8", load_cap=1.05, dedup="gpu"),
}


def listing() -> str:
    """Return a line per instance."""
    return "\n".join(f"{name:24} {instance}" for name, instance in INSTANCES.items())


if __name__ == "__main__":
    print(listing())
