"""When a search stops: what is not said, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from solvers import Limits
from traces import InputError


def test_ten_seconds_by_default() -> None:
    """A search always ends."""
    assert Limits().time_s == 10.0
    assert Limits(gap=0.02).time_s == 10.0


def test_no_time_with_work() -> None:
    """A clock would take away what work promises: the same plan on any machine."""
    assert Limits(work=100).time_s is None
    assert Limits(work=100).deterministic


def test_work_and_time_together_are_kept() -> None:
    """Whichever comes first; then a clock may decide."""
    limits = Limits(work=100, time_s=3)
    assert (limits.work, limits.time_s) == (100, 3)
    assert not limits.deterministic


def test_no_limit_can_be_said() -> None:
    """None is an answer, not silence."""
    assert Limits(time_s=None).time_s is None
    assert Limits(time_s=None).said


def test_whether_a_time_was_said_is_known_and_makes_no_limits_differ() -> None:
    """Ten seconds are ten seconds, whoever said so."""
    assert Limits(time_s=10).said
    assert not Limits().said
    assert Limits(time_s=10.0) == Limits()


@pytest.mark.parametrize(
    ("name", "value"),
    [("time_s", 0), ("time_s", float("inf")), ("work", 0), ("gap", 1), ("gap", -0.1), ("stall_s", 0)],
)
def test_limits_out_of_range_are_refused(name: str, value: Any) -> None:
    """A limit that nothing could keep, or that would never end a search."""
    with pytest.raises(InputError) as error:
        Limits(**{name: value})
    assert [(item.code, item.pointer) for item in error.value.violations] == [("limit_range", f"/limits/{name}")]


def test_all_limits_out_of_range_are_told_at_once() -> None:
    """Each with its place."""
    wrong: dict[str, Any] = {"time_s": -1, "work": 2.5, "gap": 2, "stall_s": "soon"}
    with pytest.raises(InputError) as error:
        Limits(**wrong)
    assert [item.pointer for item in error.value.violations] == [f"/limits/{name}" for name in wrong]


def test_a_front_has_sixty_seconds_where_nobody_gives_a_time() -> None:
    """All its searches together; a time or a work limit that is given stays."""
    assert Limits().of_front().time_s == 60
    assert Limits(gap=0.1).of_front() == Limits(gap=0.1, time_s=60)
    assert Limits(time_s=10).of_front().time_s == 10
    assert Limits(work=5).of_front() == Limits(work=5)
    assert Limits().of_front().of_front() == Limits().of_front()
