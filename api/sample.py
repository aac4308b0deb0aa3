"""The sample trace: where it lies in an installed package, and in the repository."""

from __future__ import annotations

from pathlib import Path

from traces import InputError

__all__ = ["SAMPLE", "sample_path"]

SAMPLE = "tiny_moe.npz"


def sample_path() -> Path:
    """Return the sample trace.

    Raises
    ------
    InputError
        If it is not installed.
    """
    api = Path(__file__).resolve().parent
    for candidate in (api / "data" / SAMPLE, api.parent / "examples" / "tiny_moe" / SAMPLE):
        if candidate.is_file():
            return candidate
    raise InputError.of("file_missing", SAMPLE, "The sample trace is not installed.", "Install moe-placement again.")
