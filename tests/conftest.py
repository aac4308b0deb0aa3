"""Settings of all tests."""

import gc

import pytest
from hypothesis import settings

# The first call of a compiled loop takes seconds, and continuous integration machines stall: no deadlines.
settings.register_profile("moe-placement", deadline=None)
settings.load_profile("moe-placement")


def pytest_collection_finish() -> None:
    """Leave modules and collected tests to themselves: garbage is looked for among what tests make."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their parameter: what they hold may differ between processes (a time of packing, say)."""
    return argname if isinstance(val, bytes) else None
