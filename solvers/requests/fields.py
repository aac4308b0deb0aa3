"""Fields that several requests have: each is declared once, with its range, unit and help, and settled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, Unit, doc

from traces.support.errors import InputError, Violations
from traces.support.words import HoldOutBy, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from placement import Topology
    from placement.engines import EngineChoice
    from placement.time import TimeModel

__all__ = [
    "MAX_SLOTS",
    "MAX_TOKENS",
    "ExpertBytes",
    "HoldOutOf",
    "RedundantExperts",
    "SlotsPerGpu",
    "TokensPerGpu",
    "check_plan",
    "check_timed",
    "settle_engine",
    "settle_topology",
    "time_model_of",
    "topology_of_machine",
]

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


def settle_topology(request: Any, found: Violations, *, needed: bool = False) -> None:
    """Parse the topology of a request; what is none is reported, as is None where one is needed."""
    from placement import Topology  # takes long to import, and help texts are made from the fields alone

    given = request.topology
    if isinstance(given, str):
        try:
            object.__setattr__(request, "topology", Topology.parse(given))
        except InputError as error:
            found.extend(error)
    elif given is None and needed:
        detail = "A plan needs a machine."
        found.add("topology_missing", "/topology", detail, "Give one, such as '1x8' or '4x8'.")
    elif given is not None and not isinstance(given, Topology):
        detail = f"{type(given).__name__} is no Topology."
        found.add("wrong_type", "/topology", detail, "Give '1x8' or '4x8', say, or a placement.Topology.")


def settle_engine(request: Any, found: Violations) -> EngineChoice | None:
    """Write the engine of a request out with its algorithm, and return it; an unknown one is reported."""
    if not isinstance(request.engine, str):
        return None
    from placement.engines import engine_of

    try:
        choice = engine_of(request.engine)
    except InputError as error:
        found.extend(error)
        return None
    object.__setattr__(request, "engine", str(choice))
    return choice


def check_plan(plan: Any, pointer: str, found: Violations) -> None:
    """Report what is no plan, but for None."""
    if plan is None:
        return
    from placement import Plan

    if not isinstance(plan, Plan):
        found.add("wrong_type", pointer, f"{type(plan).__name__} is no Plan.", "Give a placement.Plan.")


def check_timed(request: Any, found: Violations) -> None:
    """Report a machine without a model, the reverse, and what is said of timed passes beside neither."""
    if (request.machine is None) != (request.model is None):
        detail = "Times need both a machine and a model."
        missing = "/machine" if request.machine is None else "/model"
        found.add("machine_and_model", missing, detail, "Give both, or neither.")
    for name in ("phase", "tokens_per_gpu") if request.machine is None else ():
        if getattr(request, name) is not None:
            detail = "Only timed passes have one, which need a machine and a model."
            found.add("without_effect", f"/{name}", detail, "Give machine and model, or leave it out.")


def time_model_of(request: Any, phase: Phase) -> TimeModel | None:
    """Return the time model of a request, `phase` where it names none; None where nothing is to be timed.

    Raises
    ------
    InputError
        If machine or model are not known.
    """
    if request.machine is None or request.model is None:
        return None
    from placement.time import TimeModel

    return TimeModel.of(
        request.machine, request.model, phase=request.phase or phase, tokens_per_gpu=request.tokens_per_gpu
    )


def topology_of_machine(name: str, timed: Callable[[], TimeModel]) -> Topology:
    """Return the topology of a machine; classes of devices are as fast as the kernels of a time model on them.

    Raises
    ------
    InputError
        If machine, model or back end are not known.
    """
    from placement.time import Machine

    machine = Machine.parse(name)
    return machine.topology() if len(machine.kinds) == 1 else timed().topology
