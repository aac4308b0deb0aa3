"""What follows a search is loaded while it runs."""

from __future__ import annotations

import logging

import pytest

from solvers import ahead


def test_a_tiny_plan_is_judged(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of it would be hidden, as whoever judges the real plan gets the error."""
    with caplog.at_level(logging.DEBUG, logger="solvers.ahead"):
        ahead._judge()
    assert not caplog.records
