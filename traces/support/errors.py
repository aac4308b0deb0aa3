"""How every package says that an input is wrong: all violations at once, each with place, rule and remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

__all__ = ["InputError", "Violation", "Violations"]


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
        Every violation that was found; never empty.
    """

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__("\n".join(str(violation) for violation in violations))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Violation, ...]]]:
        return (type(self), (self.violations,))

    @classmethod
    def of(cls, code: str, pointer: str, detail: str, remedy: str = "") -> InputError:
        """Build an error with a single violation."""
        return cls((Violation(code=code, pointer=pointer, detail=detail, remedy=remedy),))


@dataclass
class Violations:
    """Collects violations, so that a check reports all of them and raises once."""

    found: list[Violation] = field(default_factory=list)

    def add(self, code: str, pointer: str, detail: str, remedy: str = "") -> None:
        """Record one violation."""
        self.found.append(Violation(code=code, pointer=pointer, detail=detail, remedy=remedy))

    def extend(self, error: InputError, prefix: str = "") -> None:
        """Record the violations of `error`, their pointers below `prefix`."""
        for violation in error.violations:
            self.add(violation.code, prefix + violation.pointer, violation.detail, violation.remedy)

    def raise_if_any(self) -> None:
        """Raise `InputError` with everything recorded so far, if there is anything."""
        if self.found:
            raise InputError(tuple(self.found))
