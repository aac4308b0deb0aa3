"""The time model of one deployment: machine, model, phase and back end, and the time that a pass takes under it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from placement.problem.objective import Execution
from placement.time.asked import FRAMEWORKS, PHASES, check_words, notes_of
from placement.time.catalogue import Coefficients, exchange_for, kernel_for, known_backends
from placement.time.collectives import VECTOR_BYTES, everywhere_ms
from placement.time.exchange import HIERARCHICAL, ONE_PER_EXPERT, Exchange, Way, link_exchange
from placement.time.experts import ExpertKernel
from placement.time.fair import relative_speed
from placement.time.machine import Machine
from placement.time.overlap import Overlap, in_halves, of_halves, overlapped_ms
from placement.time.passes import LayerTimes, PassLoad
from placement.time.rest import REST_ERROR
from placement.time.rest import rest_ms as rest_of
from placement.time.tiers import tiers_ms
from placement.topology.topology import Topology
from traces import InputError
from traces.model.presets import Model, load_model
from traces.model.shape import WEIGHT_BYTES
from traces.support.kinds import checked
from traces.support.words import Phase

__all__ = ["Overlap", "TimeModel"]

Floats = npt.NDArray[np.float64]
BACKENDS = {"prefill": "deepep_normal", "decode": "deepep_low_latency"}


@dataclass(frozen=True, kw_only=True)
class TimeModel:
    """What time depends on beside plan and trace.

    Attributes
    ----------
    machine : Machine
    model : Model
    phase : {"prefill", "decode"}
    tokens_per_gpu : int
        Tokens of each rank in a forward pass.
    weight_dtype : str
        How the experts are stored.
    kernels : tuple of ExpertKernel
        Of each kind of GPU, in the order of ``machine.kinds``.
    inside, across : Exchange
        All-to-all within a node, and between nodes.
    backend : str
        Of the all-to-all.
    overlap : {"none", "two_batch"}
        ``two_batch``: one half of a batch travels while the other computes; see `placement.time.overlap`.
    rest_ms : float
        Milliseconds per layer beside the experts and their exchange; with ``two_batch``, of both halves.
    whole_rest_ms : float or None
        The same of a whole batch; None where it is `rest_ms`.
    dense_layers : int
        Layers without experts, which take `rest_ms` too.
    notes : tuple of str
        What was assumed.
    """

    MADE_BY: ClassVar = "Use placement.time.TimeModel.of('h200:4x8', 'deepseek-v3', phase='prefill')."

    machine: Machine
    model: Model
    phase: Phase
    tokens_per_gpu: int
    weight_dtype: str
    kernels: tuple[ExpertKernel, ...]
    inside: Exchange
    across: Exchange
    backend: str
    overlap: Overlap = "none"
    rest_ms: float
    whole_rest_ms: float | None = None
    dense_layers: int
    notes: tuple[str, ...] = ()

    @classmethod
    @checked
    def of(
        cls,
        machine: str | Machine,
        model: str | Model,
        *,
        phase: Phase,
        tokens_per_gpu: int | None = None,
        framework: str | None = None,
        backend: str | None = None,
        overlap: Overlap = "none",
        weight_dtype: str | None = None,
        rest_ms: float | None = None,
        own: Coefficients | None = None,
    ) -> TimeModel:
        """Put a model together from names.

        Parameters
        ----------
        machine : str or Machine
            Such as ``h200:4x8``.
        model : str or Model
            Such as ``deepseek-v3``, or the path of a config.json.
        phase : {"prefill", "decode"}
        tokens_per_gpu : int, optional
            Tokens of each rank in a pass: 4,096 in prefill and 128 in decode by default.
        framework : str, optional
            ``sglang``, ``tensorrt-llm`` or ``vllm``, whose kernels are wanted.
        backend : str, optional
            Of the all-to-all: ``deepep_normal`` in prefill and ``deepep_low_latency`` in decode by default.
        overlap : {"none", "two_batch"}
        weight_dtype : str, optional
            How the experts are served, where not as the config says: ``fp8_block`` say.
        rest_ms : float, optional
            Milliseconds per layer of attention, router and shared experts, measured; a roofline of their weights
            otherwise.
        own : Coefficients, optional
            Fitted to one's own measurements.

        Raises
        ------
        InputError
            If something is not known or not in its range.
        """
        where = Machine.parse(machine) if isinstance(machine, str) else machine
        what = load_model(model) if isinstance(model, str) else model
        check_words(
            {
                "phase": (phase, PHASES),
                "overlap": (overlap, get_args(Overlap)),
                "framework": (framework, FRAMEWORKS),
                "weight_dtype": (weight_dtype, tuple(WEIGHT_BYTES)),
                "backend": (backend, known_backends() if backend else ()),
            }
        )
        tokens = tokens_per_gpu if tokens_per_gpu is not None else (4096 if phase == "prefill" else 128)
        if not 1 <= tokens <= 1_000_000:
            detail = f"{tokens} tokens per GPU."
            raise InputError.of("tokens_per_gpu_range", "/tokens_per_gpu", detail, "Give 1 to 1,000,000.")
        if rest_ms is not None and not 0 <= rest_ms < np.inf:
            raise InputError.of("rest_ms_range", "/rest_ms", f"{rest_ms} ms.", "Give milliseconds of at least 0.")
        dtype = weight_dtype or what.shape.weight_dtype
        gpus = [next(gpu for gpu in where.gpus if gpu.name == kind) for kind in where.kinds]
        kernels = tuple(kernel_for(gpu, phase, dtype, framework=framework, own=own) for gpu in gpus)
        name = backend or BACKENDS[phase]
        slowest = min(gpus, key=lambda gpu: gpu.nvlink_gb_s)
        inside = exchange_for(slowest, name, own=own)
        across = inside
        if where.num_nodes > 1 and not any(curve.nodes > 1 for curve in inside.curves):
            across = link_exchange(min(gpus, key=lambda gpu: gpu.network_gb_s))

        def rest(part: float) -> float:
            return max(rest_of(gpu, what.shape, part * tokens, phase) for gpu in gpus)

        estimated = float(of_halves(overlap, rest)) if rest_ms is None else rest_ms
        return cls(
            machine=where,
            model=what,
            phase=phase,
            tokens_per_gpu=tokens,
            weight_dtype=dtype,
            kernels=kernels,
            inside=inside,
            across=across,
            backend=name,
            overlap=overlap,
            rest_ms=estimated,
            whole_rest_ms=float(rest(1.0)) if rest_ms is None else rest_ms,
            dense_layers=len(what.layout.dense_layers),
            notes=notes_of(kernels, inside, across, where, rest_ms is None, name),
        )

    def without_overlap(self) -> TimeModel:
        """Return the model of the same batch as a whole."""
        rest_ms = self.rest_ms if self.whole_rest_ms is None else self.whole_rest_ms
        return replace(self, overlap="none", rest_ms=rest_ms)

    @property
    def dedup(self) -> Literal["none", "node", "gpu"]:
        """What the back end sends once per: expert for low-latency kernels, else node."""
        return "none" if self.backend in ONE_PER_EXPERT else "node"

    @property
    def relayed(self) -> bool:
        """Whether copies go through a rank of their own node: the hierarchical all-to-all."""
        return self.backend == HIERARCHICAL

    @property
    def pass_tokens(self) -> int:
        """Tokens of a pass, all ranks together."""
        return self.tokens_per_gpu * self.machine.num_gpus

    @cached_property
    def kinds(self) -> npt.NDArray[np.int64]:
        """Index into `kernels` of each rank, (G,)."""
        return self.machine.kind_of_gpu

    @cached_property
    def topology(self) -> Topology:
        """The topology that plans are searched for on: the machine's, with the speeds of its classes in these passes.

        See `placement.time.fair`; devices that are all alike are alike here.
        """
        names = self.machine.kinds
        if len(names) == 1:
            return self.machine.topology()
        speed = relative_speed(self.kernels, np.bincount(self.kinds), self.pass_tokens, self.model.shape)
        told = ", ".join(f"{name} {share:.2f}" for name, share in zip(names, speed, strict=True))
        note = (
            f"Loads that are fair follow what kernels take in {self.phase} of {self.tokens_per_gpu:,} tokens: {told}."
        )
        return self.machine.topology(speed[self.kinds], (note,))

    def rank_ms(self, load: PassLoad) -> Floats:
        """Return the time of every rank's experts, (L, G) milliseconds."""
        found = np.empty(load.rows.shape)
        for kind, kernel in enumerate(self.kernels):
            ranks = self.kinds == kind
            found[:, ranks] = kernel.rank_ms(load.counts[:, ranks], load.rows[:, ranks], self.model.shape)
        return found

    def exchange_ms(self, load: PassLoad, way: Way) -> Floats:
        """Return the time of one direction of each layer, (L,) milliseconds; see `placement.time.tiers`."""

        def tiers(part: PassLoad) -> Floats:
            return tiers_ms(self.machine, self.inside, self.across, part, way, self.model.shape)

        return in_halves(self.overlap, tiers, load)

    def experts_ms(self, load: PassLoad) -> Floats:
        """Return the time of the slowest rank's experts, (L,) milliseconds."""
        return in_halves(self.overlap, lambda part: self.rank_ms(part).max(axis=1), load)

    def layer_times(self, load: PassLoad, execution: Execution = "dispatch") -> LayerTimes:
        """Return the times of a pass.

        Tokens that travel from layer to layer (``context_coherent``) move once per layer, in 16 bits, and never home;
        before the first layer every rank gets the new tokens of all others.
        """
        experts = self.experts_ms(load)
        if execution == "dispatch":
            there, back = self.exchange_ms(load, "dispatch"), self.exchange_ms(load, "combine")
            return LayerTimes(dispatch=there, experts=experts, combine=back, rest=self.rest_ms)
        moves = self.exchange_ms(load, "combine")
        moves[-1] = 0  # the last layer's tokens stay
        return LayerTimes(
            dispatch=moves,
            experts=experts,
            combine=np.zeros_like(moves),
            rest=self.rest_ms,
            gather=self.gather_ms(load.tokens),
        )

    def gather_ms(self, tokens: int) -> float:
        """Return the time in which every rank gets the new tokens of all ranks, 16 bits per number."""
        gb = tokens * self.model.shape.hidden_size * VECTOR_BYTES / 1e9
        return everywhere_ms(self.machine, "nccl_all_gather", gb)[0]

    def step_ms(self, times: LayerTimes) -> float:
        """Return the time of a whole pass: its MoE layers, less what overlaps, and the layers without experts."""
        exchange = times.dispatch + times.combine
        compute = times.experts + times.rest
        layers = overlapped_ms(exchange, compute) if self.overlap == "two_batch" else exchange + compute
        return float(layers.sum() + self.dense_layers * times.rest + times.gather)

    def error_fraction(self, times: LayerTimes) -> float:
        """Return the typical relative error of a step: that of each part, weighted by its time."""
        experts = max(kernel.error.median for kernel in self.kernels)
        tiers = [self.inside] + ([self.across] if self.machine.num_nodes > 1 else [])
        exchange = max(float(np.median([curve.error.median for curve in tier.curves])) for tier in tiers)
        parts = (
            (float(times.experts.sum()), experts),
            (float((times.dispatch + times.combine).sum()) + times.gather, exchange),
            ((len(times.experts) + self.dense_layers) * times.rest, REST_ERROR),
        )
        whole = sum(time for time, _ in parts)
        return sum(time * error for time, error in parts) / whole if whole else 0.0
