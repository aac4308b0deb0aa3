"""How every package says that an input is wrong: all violations at once, each with place, rule and remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LISTED", "InputError", "Violation", "Violations"]

LISTED = 100  # violations that an error lists; of more, nobody reads the list, and a hostile input would have no end
MAX_DETAIL = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken rule.

    Attributes
    ----------
    code : str
        Stable, machine-readable name of the rule, such as ``id_out_of_range``.
    pointer : str
        Where: a JSON pointer into a document (``/constraints/pins/0``), or ``FILE#row 3, layer 1`` in a trace.
    detail : str
        What was found and which rule it breaks, as a sentence.
    remedy : str
        What the user can do about it.
    """

    code: str
    pointer: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.pointer}: {self.detail}"
        return f"{text} {self.remedy}".rstrip() + f" [{self.code}]"

    def as_dict(self) -> dict[str, str]:
        """Return the violation as a JSON-ready dictionary."""
        return asdict(self)


class InputError(ValueError):
    """Input that breaks at least one rule.

    Parameters
    ----------
    violations : tuple of Violation
        Every violation that was found, or the first `LISTED`; never empty.
    more : int
        How many were found beyond these; a last violation, ``more_violations``, then tells how many there are.
    stopped : bool
        Whether the check has stopped before the end, so that there may be more still.
    """

    def __init__(self, violations: tuple[Violation, ...], more: int = 0, *, stopped: bool = False) -> None:
        self.listed, self.more, self.stopped = violations, more, stopped
        self.violations = violations
        if more or stopped:
            count = f"{len(violations) + more} violations{' or more' if stopped else ''}"
            detail = f"There are {count}; the first {len(violations)} are listed."
            self.violations += (
                Violation(code="more_violations", pointer="", detail=detail, remedy="Correct these, and check again."),
            )
        super().__init__("\n".join(str(violation) for violation in self.violations))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_input_error, (type(self), self.listed, self.more, self.stopped))

    @classmethod
    def of(cls, code: str, pointer: str, detail: str, remedy: str = "") -> InputError:
        """Build an error with a single violation."""
        return cls((Violation(code=code, pointer=pointer, detail=detail, remedy=remedy),))


def _input_error(kind: type[InputError], violations: tuple[Violation, ...], more: int, stopped: bool) -> InputError:
    return kind(violations, more, stopped=stopped)


@dataclass
class Violations:
    """Collects violations, so that a check reports all of them and raises once.

    Of more than `LISTED`, the first are kept and the others counted.

    Attributes
    ----------
    found : list of Violation
    more : int
        Violations beyond these.
    stopped : bool
        Whether a check has ended early, because `enough` were found.
    """

    found: list[Violation] = field(default_factory=list)
    more: int = 0
    stopped: bool = False

    @property
    def count(self) -> int:
        """How many were found."""
        return len(self.found) + self.more

    def add(self, code: str, pointer: str, detail: str, remedy: str = "") -> None:
        """Record one violation."""
        if len(self.found) >= LISTED:
            self.more += 1
            return
        if len(detail) > MAX_DETAIL:
            detail = f"{detail[: MAX_DETAIL - 3]}..."
        self.found.append(Violation(code=code, pointer=pointer, detail=detail, remedy=remedy))

    def enough(self) -> bool:
        """Whether a check that takes long may end here, because the list is full; notes that it does."""
        self.stopped = self.stopped or len(self.found) >= LISTED
        return self.stopped

    def extend(self, error: InputError, prefix: str = "") -> None:
        """Record the violations of `error`, their pointers below `prefix`."""
        for violation in error.listed:
            self.add(violation.code, prefix + violation.pointer, violation.detail, violation.remedy)
        self.more += error.more
        self.stopped = self.stopped or error.stopped

    def error(self) -> InputError:
        """Return what was recorded so far as an error; there must be something."""
        return InputError(tuple(self.found), self.more, stopped=self.stopped)

    def raise_if_any(self) -> None:
        """Raise `InputError` with everything recorded so far, if there is anything."""
        if self.found:
            raise self.error()
