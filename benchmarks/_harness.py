"""What the benchmarks share: interleaved rounds, medians of paired ratios, child processes with their peak memory."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "Neighbours",
    "Sample",
    "available_cores",
    "conditions",
    "in_child",
    "interleaved",
    "median_ratio",
    "seconds",
    "table",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run in a child process.

    Attributes
    ----------
    seconds : float
        Wall time of the work alone, after imports and warm-up.
    cpu_seconds : float
        CPU time of all threads in that time; well below ``seconds * threads`` where other processes got the cores.
    peak_bytes : int
        Largest resident memory of the whole process: interpreter, libraries and warm-up included.
    result : object
        What the work returned.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    result: Any


class Neighbours:
    """How much of the machine other processes took since this was made; the measure of noise."""

    def __init__(self) -> None:
        self._start = self._now()

    def __str__(self) -> str:
        wall, busy, own = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return f"meanwhile, other processes took {max(busy - own, 0.0) / wall:.1f} of {os.cpu_count()} cores"

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return wall time, CPU time of the whole machine, and that of this process and its ended children."""
        user, nice, system, _idle, _wait, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        ticks = sum(map(int, (user, nice, system, *interrupts)))
        return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def available_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def conditions(data: str, seed: int, threads: str) -> str:
    """Return the line that every benchmark prints first."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba"))
    machine = f"{available_cores()} cores (load before: {os.getloadavg()[0]:.1f})"
    return f"data: {data}; seed {seed}\n{machine}, {threads}; Python {platform.python_version()}, {versions}"


def seconds(work: Callable[[], Any]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(variants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every variant once per round, in turns.

    Variants of one round run close together in time, so that a slow spell of the machine hits all of them; every
    other round runs backwards, so that none is always the first.

    Returns
    -------
    dict of str to list
        Results by variant; entry r of every list is from round r.
    """
    results: dict[str, list[T]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            results[name].append(variants[name]())
    return results


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    """Return median, least and greatest of ``slow / fast``, taken round by round."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def in_child(work: Callable[..., Any], arguments: tuple[Any, ...], warm_up: tuple[Any, ...], cores: int) -> Sample:
    """Call ``work(*warm_up)`` and then, timed, ``work(*arguments)`` in a fresh process bound to so many cores."""
    # Spawned, not forked: nothing of this process counts as the child's memory.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, work, arguments, warm_up, cores).result()


def _run(work: Callable[..., Any], arguments: tuple[Any, ...], warm_up: tuple[Any, ...], cores: int) -> Sample:
    # Without this, "one thread" would still read the file on a second core.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    work(*warm_up)
    start, cpu_start = time.perf_counter(), time.process_time()
    result = work(*arguments)
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return Sample(seconds=elapsed, cpu_seconds=cpu, peak_bytes=_peak_bytes(), result=result)


def _peak_bytes() -> int:
    """Return this process's peak resident memory. Not `ru_maxrss`: it survives exec and may be the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM; run the benchmarks on Linux.")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([f"{cells[0]:<{widths[0]}}", *padded]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])
