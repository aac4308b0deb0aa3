"""What is asked about failures: declared once, read by Python and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Unit, doc

from placement.survival.survive import Survive
from traces.support.declared import check_declared
from traces.support.errors import Violations

__all__ = ["FailureRequest"]


@dataclass(frozen=True, kw_only=True)
class FailureRequest:
    """What fails, of a plan on its machine.

    Attributes
    ----------
    survive : Survive
    topology : str or None
        Name or file; the one that the plan records by default.
    expert_bytes : int or None
        Size of one expert's weights, to tell what is loaded in bytes.

    Raises
    ------
    InputError
    """

    survive: Annotated[Survive, doc("What fails: nodes=1, gpus=2, hosts=1 or links.")]
    topology: Annotated[str | None, doc("4x8, a preset, or a topology file; as the plan records it by default.")] = None
    expert_bytes: Annotated[
        int | None, Ge(1), Unit("bytes"), doc("Size of one expert's weights, to tell bytes as well.")
    ] = None

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        found.raise_if_any()
