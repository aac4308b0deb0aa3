"""Errors of executors that the dispatcher tells apart."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

__all__ = ["ExecutorLostError"]


class ExecutorLostError(BrokenExecutor):
    """The executor went away, by no fault of what it ran."""
