"""Finding the routers of a model, and what each one's output says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from traces.capture.outputs import READS, TUPLE_OF_THREE, Read, by_choice, sole_integers
from traces.support.errors import InputError, Violations

__all__ = ["Router", "find_routers"]

KNOWN = re.compile(r"(TopKRouter|TopkRouter|TokenChoiceRouter|HashRouter|TextRouter|MoEV1Gate)$")
REFUSED = {
    "ZayaRouter": "its skip expert comes out as expert 0",
    "NllbMoeTop2Router": "it drops tokens beyond a capacity",
    "SwitchTransformersTop1Router": "it drops tokens beyond a capacity",
    "DogeCDMoE": "its experts are rows of a table, which no engine places, and it keeps its choice to itself",
}
NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
HINT = re.compile(r"router|gate$|gating", re.IGNORECASE)
SHOWN = 6
NAMING = (
    'Name them: routers=["layers.*.gate"] (patterns of module names), and choose=..., a function from their output to'
    " the indices, or to (indices, weights)."
)


@dataclass(frozen=True, kw_only=True)
class Router:
    """A module to hook.

    Attributes
    ----------
    name : str
        Its name in the model.
    module : torch.nn.Module
    layer : int
        Model layer.
    num_experts : int
        E.
    read : callable
        From module, arguments and output to (indices, weights or None).
    """

    name: str
    module: Any
    layer: int
    num_experts: int
    read: Read


def find_routers(
    model: Any,
    named: Iterable[str] | Mapping[str, int] | None,
    choose: Callable[[Any], Any] | None,
    num_experts: int | None,
) -> list[Router]:
    """Return the routers in the order of layers.

    Parameters
    ----------
    model : torch.nn.Module
    named : names or patterns of modules, or a mapping from names to model layers, optional
        By default the routers of transformers' models are found by their class.
    choose : callable, optional
        From a router's output to the indices, or to (indices, weights).
    num_experts : int, optional
        E, where the modules don't tell.

    Raises
    ------
    InputError
        If there are none, two in one layer, or the number of experts is unknown or differs.
    """
    modules = dict(model.named_modules())
    if isinstance(named, str):
        named = [named]
    chosen = _discover(modules) if named is None else _select(modules, named)
    given = dict(named) if isinstance(named, Mapping) else {}
    found, routers = Violations(), []
    for place, name in enumerate(chosen):
        kind = type(modules[name]).__name__
        if choose is not None:
            read = by_choice(choose)
        else:
            read = READS.get(kind) or (TUPLE_OF_THREE if KNOWN.search(kind) else sole_integers)
        layer = given.get(name)
        if layer is None:
            number = NUMBER.search(name)
            layer = place if number is None else int(number.group(1))
        experts = num_experts or _count_experts(modules, name)
        if experts is None:
            found.add("num_experts_unknown", f"/{name}", f"{kind} has no num_experts.", "Give `num_experts`.")
        routers.append(Router(name=name, module=modules[name], layer=layer, num_experts=experts or 0, read=read))
    _check(routers, found)
    return sorted(routers, key=lambda router: router.layer)


def _discover(modules: dict[str, Any]) -> list[str]:
    kinds = {name: type(module).__name__ for name, module in modules.items()}
    refused = {kind: REFUSED[kind] for kind in kinds.values() if kind in REFUSED}
    if refused:
        reasons = "; ".join(f"{kind}: {reason}" for kind, reason in refused.items())
        raise InputError.of(
            "router_unsupported", "/model", f"Not recorded: {reasons}.", f"If you know what to record: {NAMING}"
        )
    found = []
    for name, kind in kinds.items():
        # JetMoE's attention has experts and a router of the same class; those are not the layer's feed-forward experts.
        if kind == "JetMoeTopKGating" and "self_attention" in name:
            continue
        if kind in READS or (KNOWN.search(kind) and "Vision" not in kind):
            found.append(name)
    if not found:
        alike = [f"{name} ({kind})" for name, kind in kinds.items() if HINT.search(name) or HINT.search(kind)]
        listed = f" Modules that may be routers: {', '.join(alike[:SHOWN])}." if alike else ""
        raise InputError.of(
            "no_router",
            "/model",
            "No module's class is a router of transformers 5: none is named ...TopKRouter, ...TopkRouter,"
            f" ...TokenChoiceRouter, ...HashRouter, ...TextRouter, ...MoEV1Gate or {', '.join(READS)}.{listed}",
            NAMING,
        )
    return found


def _select(modules: dict[str, Any], named: Iterable[str]) -> list[str]:
    patterns = list(named)
    missing = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in modules)]
    if missing or not patterns:
        raise InputError.of(
            "no_router",
            "/routers",
            f"No module is named {', '.join(map(repr, missing)) or 'at all'}. Some of the model's modules:"
            f" {', '.join(list(modules)[1:SHOWN])}.",
            "Take names from model.named_modules(); * stands for any text.",
        )
    return [name for name in modules if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _count_experts(modules: dict[str, Any], name: str) -> int | None:
    """Return E, from the experts beside the router if possible: some routers count shared or empty experts too."""
    experts = modules.get(f"{name.rpartition('.')[0]}.experts".lstrip("."))
    for module, attribute in (
        (experts, "num_routed_experts"),
        (experts, "num_experts"),
        (modules[name], "num_experts"),
        (modules[name], "n_routed_experts"),
    ):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    try:
        return None if experts is None else len(experts)
    except TypeError:
        return None


def _check(routers: list[Router], found: Violations) -> None:
    by_layer: dict[int, list[str]] = {}
    for router in routers:
        by_layer.setdefault(router.layer, []).append(router.name)
    for layer, names in by_layer.items():
        if len(names) > 1:
            found.add(
                "layer_twice",
                f"/layers/{layer}",
                f"Layer {layer} has {len(names)} routers: {', '.join(names[:SHOWN])}.",
                "Name those that you mean with routers=, or give their layers: routers={name: layer}.",
            )
    counts = sorted({router.num_experts for router in routers if router.num_experts})
    if len(counts) > 1:
        found.add(
            "num_experts_differ",
            "/num_experts",
            f"Routers choose among {counts} experts; a trace has the same number in every layer.",
            "Record the layers of each kind on their own, with routers=.",
        )
    found.raise_if_any()
