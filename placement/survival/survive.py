"""What may fail without an expert being lost: GPUs, hosts, nodes or links, and how many at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from annotated_types import Ge, doc

from traces.support.errors import InputError

__all__ = ["FailureUnit", "Survive"]

FailureUnit = Literal["gpus", "hosts", "nodes", "links"]
TEXT = re.compile(r"(?P<unit>[a-z]+)(?:=(?P<failures>\d{1,9}))?(?:,lost=(?P<lost>\d{1,9}|least))?")


@dataclass(frozen=True, kw_only=True)
class Survive:
    """Every expert of every layer keeps a live copy, whatever so many units fail at once.

    Attributes
    ----------
    unit : {"gpus", "hosts", "nodes", "links"}
        What fails as a whole. A node is the set of GPUs that fast links join, which may be several hosts. ``links``:
        the link of a node to the others, or of a GPU where there is one node only; what it cuts off counts as failed.
    failures : int
        How many fail at once, k.
    lost : int or None
        Experts of a layer that may be without a live copy then; above 0 for one failure only. None: as few as these
        slots allow, for one failure only as well.
    """

    FORM: ClassVar[str] = "gpus=K|hosts=K|nodes=K|links[,lost=N|least]"

    unit: Annotated[FailureUnit, doc("What fails as a whole; links cut off a node, or a GPU where there is one node.")]
    failures: Annotated[int, Ge(1), doc("How many fail at once.")] = 1
    lost: Annotated[
        int | None,
        Ge(0),
        doc("Experts of a layer that may be lost then, for one failure; null: as few as there can be."),
    ] = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``nodes=1``, ``gpus=2``, ``links`` or ``nodes=1,lost=least``.

        Raises
        ------
        InputError
        """
        found = TEXT.fullmatch(text.strip().replace(" ", ""))
        unit: Any = None if found is None else found["unit"]
        if found is None or unit not in get_args(FailureUnit):
            remedy = "Give nodes=1, gpus=2, links or nodes=1,lost=least, say."
            raise InputError.of("survive_form", "", f"{text!r:.60} is not {cls.FORM}.", remedy)
        lost = found["lost"] or "0"
        return cls(unit=unit, failures=int(found["failures"] or 1), lost=None if lost == "least" else int(lost))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        lost = "" if self.lost == 0 else f",lost={'least' if self.lost is None else self.lost}"
        return f"{self.unit}={self.failures}{lost}"
