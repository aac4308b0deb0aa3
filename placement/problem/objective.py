"""What is minimised: named terms with units and weights, for both ways that tokens travel."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from annotated_types import Ge, Le, Unit, doc

from placement.engines.words import Dedup, Execution, Ownership, ReplicaPolicy
from traces.support.declared import check_declared
from traces.support.errors import Violations

__all__ = ["Dedup", "Execution", "Objective", "Ownership", "ReplicaPolicy", "SettledObjective"]

DECODE_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The weighted sum of terms that a plan is judged by. What is None fits the execution: see `settled`.

    Attributes
    ----------
    execution : {"context_coherent", "dispatch"} or None
        ``context_coherent`` (ExFlow, arXiv 2401.08383): a token goes from its experts of layer l straight to those of
        l+1. ``dispatch``: it leaves its home rank and comes back in every layer (vLLM, SGLang, TensorRT-LLM, Megatron).
    dedup : {"none", "gpu", "node"} or None
        Messages of a dispatch: one per expert, per distinct GPU, or per distinct remote node, forwarded inside
        (DeepEP's normal kernels).
    ownership : {"token", "sequence", "measured"} or None
        Home rank of a token under ``dispatch``: hashed per token, hashed per sequence (needs `seq_id`), or the trace's
        `source_rank`.
    replica_policy : {"fair", "same_gpu", "same_node"} or None
        Which replica of an expert a token uses: an equal split; one on the token's own GPU if there is one, else an
        equal split; or own GPU, own node, equal split.
    traffic_weight, imbalance_weight, load_excess_weight, load_spread_weight : float or None
        Weights. `traffic`: hop cost per inter-layer pair (context_coherent), per expert assignment (dispatch, dedup
        none), or per token and layer (dedup gpu, node). `imbalance`: mean over layers of max/mean GPU load, minus 1.
        `load_excess`: mean over layers of the load above the cap, summed over GPUs, in mean GPU loads. `load_spread`:
        standard error of a GPU's load over the profile's windows, mean over layers, above the tolerance, in mean GPU
        loads. Experts that fire together also peak together; without this term a cap that holds on the fitted tokens is
        missed on others. The excess counts only where a load cap is set, the spread where there is a cap or the
        imbalance has a weight, and not with `Constraints.load_quantile`, which takes its place; it vanishes as the
        trace gets longer.
    load_spread_tolerance : float or None
        Spread that costs nothing, as a share of a layer's load.
    activated_weight : float
        Weight of `activated` (dispatch only; needs tokens): the most experts with tokens on a GPU in a batch, mean over
        layers and batches. Memory-bound decoding waits for it.
    decode_batch : int or None
        Tokens in such a batch, over all ranks together; 128 by default.

    Raises
    ------
    InputError
        If a value is out of its range, or has no effect under the execution that is named beside it.
    """

    execution: Annotated[
        Execution | None, doc("How tokens travel: straight from layer to layer, or home after every layer.")
    ] = None
    dedup: Annotated[Dedup | None, doc("What a dispatch sends once per: expert (none), GPU or node.")] = None
    ownership: Annotated[
        Ownership | None, doc("Home rank of a token under dispatch: hashed per token, per sequence, or source_rank.")
    ] = None
    replica_policy: Annotated[
        ReplicaPolicy | None, doc("Which replica of an expert a token uses: any, one on its GPU, or one on its node.")
    ] = None
    traffic_weight: Annotated[float, Ge(0), doc("Weight of the traffic.")] = 1.0
    imbalance_weight: Annotated[float | None, Ge(0), doc("Weight of the busiest GPU's load over the mean.")] = None
    load_excess_weight: Annotated[float, Ge(0), doc("Weight of the load above the cap.")] = 100.0
    load_spread_weight: Annotated[float | None, Ge(0), doc("Weight of the standard error of GPU loads.")] = None
    load_spread_tolerance: Annotated[
        float | None, Ge(0), doc("Standard error that costs nothing, as a share of a layer's load.")
    ] = None
    activated_weight: Annotated[
        float, Ge(0), doc("Weight of the activated experts of the GPU that has most, for decoding.")
    ] = 0.0
    decode_batch: Annotated[
        int | None,
        Ge(1),
        Le(1_000_000),
        Unit("tokens"),
        doc("Tokens per batch that activated experts are counted over."),
    ] = None

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "/objective", found, owner=Objective)
        if self.execution == "context_coherent" and not isinstance(self, SettledObjective):
            self._check_effect(found)
        if self.decode_batch is not None and not self.activated_weight and not isinstance(self, SettledObjective):
            detail = "Batches are drawn to count activated experts, which have no weight."
            remedy = "Give activated_weight as well, or leave decode_batch out."
            found.add("without_effect", "/objective/decode_batch", detail, remedy)
        found.raise_if_any()

    def _check_effect(self, found: Violations) -> None:
        """Report what has no effect where tokens don't go home."""
        remedy = "Leave it out, or use execution 'dispatch'."
        for name in ("dedup", "ownership"):
            if getattr(self, name) is not None:
                detail = f"Under context_coherent, tokens have no home and send no messages: {name} has no effect."
                found.add("without_effect", f"/objective/{name}", detail, remedy)
        if self.activated_weight:
            detail = "Activated experts are counted with home ranks, which only execution 'dispatch' knows."
            found.add("activated_execution", "/objective/activated_weight", detail, "Use 'dispatch', or weight 0.")

    def settled(self, *, capped: bool, defaults: dict[str, Any] | None = None) -> SettledObjective:
        """Return the objective with everything said.

        Under dispatch the nearest replica of an expert is used, and the busiest GPU counts: every layer waits for it
        twice. On other tokens, the busiest of 64 GPUs is about 2 standard errors above what was expected, so the spread
        has twice the weight of the imbalance. With a load cap it is the cap that says how much balance is wanted: the
        imbalance has no weight below it, and the spread the same as for ``context_coherent``.

        Parameters
        ----------
        capped : bool
            Whether any layer has a load cap.
        defaults : dict, optional
            What an engine does; what the objective says wins.

        Raises
        ------
        InputError
            If something has no effect under the execution that follows.
        """
        said = {item.name: getattr(self, item.name) for item in fields(Objective)}
        engine = defaults or {}
        execution = said["execution"] or engine.get("execution") or "context_coherent"
        type(self)(**(said | {"execution": execution}))  # what has no effect under it is refused
        dispatch = execution == "dispatch"
        balance = dispatch and not capped
        usual = {
            "dedup": "gpu",
            "ownership": "token",
            "replica_policy": "same_node" if dispatch else "fair",
            "imbalance_weight": 30.0 if balance else 0.0,
            "load_spread_weight": 60.0 if balance else 3.0,
            "load_spread_tolerance": 0.0 if balance else 0.0088,
            "decode_batch": DECODE_BATCH,
        }
        if dispatch:
            usual |= {name: value for name, value in engine.items() if value is not None}
        unsaid = {name: value for name, value in usual.items() if said.get(name) is None}
        return SettledObjective(**(said | unsaid | {"execution": execution}))


@dataclass(frozen=True, kw_only=True)
class SettledObjective(Objective):
    """An objective with everything said: what a problem is solved under.

    Under ``context_coherent``, `dedup` and `ownership` have no meaning.
    """

    execution: Execution
    dedup: Dedup
    ownership: Ownership
    replica_policy: ReplicaPolicy
    imbalance_weight: float
    load_spread_weight: float
    load_spread_tolerance: float
    decode_batch: int

    @property
    def traffic_unit(self) -> str:
        """Unit of the traffic term."""
        if self.execution == "context_coherent":
            return "hop cost per inter-layer pair"
        return "hop cost per expert assignment" if self.dedup == "none" else "hop cost per token and layer"

    def settled(self, *, capped: bool, defaults: dict[str, Any] | None = None) -> SettledObjective:
        """Return itself: nothing is left to say."""
        return self
