"""What a terminal shows while a command works: the phase, and during a search the best plan, its bound and its gap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers import Event

__all__ = ["Progress", "progress"]


class Progress:
    """Shows phases and the events of a search; silent unless a display is given."""

    def __init__(self, show: Callable[[str, str], None] | None = None) -> None:
        self._show = show

    def phase(self, name: str) -> None:
        """Begin a phase."""
        if self._show is not None:
            self._show(name, "")

    def observe(self, event: Event) -> None:
        """Show an event of the search."""
        self.news(event.score, event.bound, event.gap, f"({event.solver})")

    def news(self, score: float | None, bound: float | None, gap: float | None, who: str = "") -> None:
        """Show how far a search is."""
        if self._show is not None:
            figures = (("incumbent", score, ".5f"), ("bound", bound, ".5f"), ("gap", gap, ".2%"))
            text = "  ".join(f"{name} {value:{style}}" for name, value, style in figures if value is not None)
            self._show("searching", f"{text}  {who}".rstrip())


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on stderr, if it is a terminal; the elapsed time runs by itself."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Display(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("starting", total=None, figures="")

        def show(name: str, figures: str) -> None:
            display.update(task, description=name, figures=figures)

        yield Progress(show)
