"""What a plan must keep: load cap, pins, exclusions, groups on one node, what has to survive failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Lt, Unit, doc

from placement.survival.survive import Survive
from traces.support.errors import InputError

__all__ = ["Constraints", "Group", "LayerCap", "LoadGroups", "Pin"]

LoadGroups = Literal["windows", "sequences", "sources"]


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An expert and a GPU; ``layer_id`` is the model layer, None for all layers."""

    FORM: ClassVar[str] = "EXPERT@GPU[@LAYER]"

    expert: Annotated[int, Ge(0), doc("Logical expert.")]
    gpu: Annotated[int, Ge(0), doc("GPU, by its rank.")]
    layer_id: Annotated[int | None, Ge(0), doc("Model layer; all layers if left out.")] = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``expert@gpu`` or ``expert@gpu@layer``.

        Raises
        ------
        InputError
        """
        numbers = _numbers(text.split("@"))
        if numbers is None or len(numbers) not in (2, 3):
            raise InputError.of(
                "pin_form", "", f"{text!r:.60} is not {cls.FORM}.", "Give numbers, such as 3@0 or 3@0@12."
            )
        return cls(expert=numbers[0], gpu=numbers[1], layer_id=numbers[2] if len(numbers) == 3 else None)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Experts whose replicas all stay on one node; ``layer_id`` is the model layer, None for all layers."""

    FORM: ClassVar[str] = "EXPERT,EXPERT,..[@LAYER]"

    experts: Annotated[tuple[int, ...], doc("Logical experts.")]
    layer_id: Annotated[int | None, Ge(0), doc("Model layer; all layers if left out.")] = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1,2,3`` or ``1,2,3@layer``.

        Raises
        ------
        InputError
        """
        members, at, layer = text.partition("@")
        experts, rows = _numbers(members.split(",")), _numbers([layer] if at else [])
        if experts is None or rows is None:
            raise InputError.of("group_form", "", f"{text!r:.60} is not {cls.FORM}.", "Give numbers, such as 1,2,3@12.")
        return cls(experts=tuple(experts), layer_id=rows[0] if rows else None)


@dataclass(frozen=True, kw_only=True)
class LayerCap:
    """A load cap for one model layer, in place of the one for all."""

    FORM: ClassVar[str] = "RATIO@LAYER"

    layer_id: Annotated[int, Ge(0), doc("Model layer.")]
    load_cap: Annotated[float, Ge(1), doc("Its load cap.")]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``cap@layer``.

        Raises
        ------
        InputError
        """
        cap, _, layer = text.partition("@")
        try:
            return cls(layer_id=int(layer), load_cap=float(cap))
        except ValueError:
            remedy = "Give numbers, such as 1.1@3."
            raise InputError.of("layer_cap_form", "", f"{text!r:.60} is not {cls.FORM}.", remedy) from None


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Constraints of a problem.

    Attributes
    ----------
    load_cap : float or None
        Largest allowed load of a GPU relative to its fair share, in every layer (max/mean for equal GPUs). Where a
        single expert makes it unattainable, the excess is minimised and the plan says so.
    layer_load_caps : tuple of LayerCap
        Caps of single layers, in place of `load_cap` there. Layers that are not listed keep `load_cap`, if any.
    load_quantile : float or None
        At least 0.5, below 1. The cap then holds for this quantile of each GPU's load, under a normal model: for the
        expected load plus ``z(load_quantile)`` standard errors. None: for the expected load. 0.95 is the usual
        one-sided level; leave the cap room for 1.6 standard errors of a balanced GPU.
    load_groups : {"windows", "sequences", "sources"} or None
        Tokens that are drawn together, over which the standard error of a load is taken: windows of consecutive tokens,
        or whole sequences (needs `seq_id`), which assumes less. ``sources``, of a profile that was merged from several:
        how far a source's load may be from that of all, between sources and within them. None: sequences if there is a
        load quantile and the profile knows two buckets of them or more, else windows.
    pins : tuple of Pin
        A replica of the expert must be on the GPU.
    forbidden : tuple of Pin
        No replica of the expert may be on the GPU.
    groups : tuple of Group
        Experts kept on one node.
    distinct_replicas : bool
        No GPU holds two replicas of an expert.
    extra_replicas : int or None
        Replicas beyond one of each expert that all layers may have together; a layer may have more of them than
        another, as far as `Problem.slots_per_gpu` has room. None: as many as there is room for.
    extra_bytes : int or None
        The same budget in bytes: so many replicas as fit it, at `Problem.expert_bytes` each, all GPUs together. Given
        beside `extra_replicas`, both have to mean the same number.
    full_slots : bool or None
        No slot stays empty: those that a search leaves over are filled with replicas of the busiest experts. None: as
        the engine wants it.
    survive : Survive or None
        What may fail without an expert being lost: a rule for each layer. Not beside a budget of replicas, nor groups
        where nodes fail.
    """

    load_cap: Annotated[
        float | None, Ge(1), doc("Largest load of a GPU relative to its fair share, in every layer: 1.05, say.")
    ] = None
    layer_load_caps: Annotated[
        tuple[LayerCap, ...], doc("Load caps of single layers, in place of the one for all.")
    ] = ()
    load_quantile: Annotated[
        float | None, Ge(0.5), Lt(1), doc("The cap holds for this quantile of a GPU's load, not for its expectation.")
    ] = None
    load_groups: Annotated[LoadGroups | None, doc("Tokens that are drawn together, to tell how much loads vary.")] = (
        None
    )
    pins: Annotated[tuple[Pin, ...], doc("Keep a replica of an expert there.")] = ()
    forbidden: Annotated[tuple[Pin, ...], doc("Keep an expert away from there.")] = ()
    groups: Annotated[tuple[Group, ...], doc("Keep experts on one node.")] = ()
    distinct_replicas: Annotated[bool, doc("No GPU holds two replicas of an expert.")] = True
    extra_replicas: Annotated[int | None, Ge(0), doc("Replicas beyond one of each expert, in all layers together.")] = (
        None
    )
    extra_bytes: Annotated[
        int | None, Ge(0), Unit("bytes"), doc("The same budget in bytes, all GPUs together; needs expert_bytes.")
    ] = None
    full_slots: Annotated[bool | None, doc("Every slot holds an expert. By default, where the engine wants it.")] = None
    survive: Annotated[
        Survive | None,
        doc("What may fail while every expert keeps a live copy: nodes=1, gpus=2 or links, say."),
    ] = None


def _numbers(texts: list[str]) -> list[int] | None:
    try:
        return [int(text) for text in texts]
    except ValueError:
        return None
