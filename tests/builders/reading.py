"""Reading counts to test with, and what must be refused."""

from __future__ import annotations

from typing import Any

import pytest

from traces import InputError, LoadCounts, load

__all__ = ["counts_of", "refused"]


def counts_of(path: Any, **options: Any) -> LoadCounts:
    """Load counts."""
    loaded = load(path, **options)
    assert isinstance(loaded, LoadCounts)
    return loaded


def refused(code: str, path: Any, **options: Any) -> str:
    """Load must fail with `code`; returns the message."""
    with pytest.raises(InputError) as error:
        load(path, **options)
    assert code in {violation.code for violation in error.value.violations}, str(error.value)
    return str(error.value)
