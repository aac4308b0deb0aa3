"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from traces.support.shown import as_html, as_text

__all__ = ["CODES", "Code", "Diagnosis", "Finding", "Severity"]

Severity = Literal["note", "warning", "error"]
Code = Literal[
    "all_zero_rows",
    "repeated_rows",
    "single_rank",
    "unrecorded_layers",
    "filler_values",
    "ids_beyond_experts",
    "layer_specific_experts",
    "degenerate_layer",
    "duplicate_prompts",
    "too_few_tokens",
    "wrapped_buffer",
    "mixed_phases",
]
CODES: tuple[Code, ...] = get_args(Code)
WORST_FIRST: tuple[Severity, ...] = ("error", "warning", "note")
LINE = "The recording has"
WORDS: dict[Code, str] = {
    "all_zero_rows": "rows of nothing but zeros",
    "repeated_rows": "repeated rows",
    "single_rank": "experts of one rank only",
    "unrecorded_layers": "layers without tokens",
    "filler_values": "fillers among the ids",
    "ids_beyond_experts": "ids beyond the routed experts",
    "layer_specific_experts": "experts that exist in some layers only",
    "degenerate_layer": "layers that use one expert",
    "duplicate_prompts": "duplicate prompts",
    "too_few_tokens": "too few tokens",
    "wrapped_buffer": "a buffer that has wrapped, perhaps",
    "mixed_phases": "prefill and decode, which differ",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a recording, or worth knowing.

    Attributes
    ----------
    code : str
        Out of `CODES`; stable.
    severity : {"note", "warning", "error"}
        ``error``: nothing can be planned from it as it is, or what is planned is worthless. ``warning``: a plan is
        worse than its figures say. ``note``: worth knowing.
    detail : str
        Where, how much, and what it does to a plan.
    remedy : str
        What to do; parameters are named as those of `traces.load`.
    words : str
        What it is in a few words, for one line on all findings; by default, those of the code.
    """

    code: Code
    severity: Severity
    detail: str
    remedy: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.detail} {self.remedy} [{self.code}]"


@dataclass(frozen=True, kw_only=True, repr=False)
class Diagnosis:
    """What the doctor finds in a recording, the worst first.

    Attributes
    ----------
    source : str
        What was looked at.
    findings : tuple of Finding
    """

    source: str
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, source: str, findings: Iterable[Finding]) -> Diagnosis:
        """Put findings into order: by severity, then as `CODES` lists them."""
        ordered = sorted(findings, key=lambda one: (WORST_FIRST.index(one.severity), CODES.index(one.code)))
        return cls(source=source, findings=tuple(ordered))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        return as_text(self._title, [(one.severity, f"{one.detail} [{one.code}]") for one in self.findings])

    def _repr_html_(self) -> str:
        return as_html(self._title, [(one.severity, f"{one.detail} {one.remedy}") for one in self.findings])

    @property
    def _title(self) -> str:
        return f"Diagnosis of {self.source}: {len(self.findings) or 'no'} findings"

    @property
    def codes(self) -> tuple[Code, ...]:
        """Codes of the findings, each once."""
        return tuple(dict.fromkeys(one.code for one in self.findings))

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error."""
        return any(one.severity == "error" for one in self.findings)

    @property
    def line(self) -> str | None:
        """The warnings and errors in one sentence, to tell before a plan; None where there are none."""
        told = [one for one in self.findings if one.severity != "note"]
        if not told:
            return None
        words = "; ".join(dict.fromkeys(one.words or WORDS[one.code] for one in told))
        return f"{LINE} {words}: `moe-placement check` says what that does to a plan, and what to do."

    def as_dict(self) -> dict[str, Any]:
        """Return ``{"findings": [{code, severity, detail, remedy}]}``."""
        names = ("code", "severity", "detail", "remedy")
        return {"findings": [{name: getattr(one, name) for name in names} for one in self.findings]}
