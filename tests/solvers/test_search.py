"""The channel between solvers and the world."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from solvers import Event, Limits, Search
from solvers.searching.threads import run_together
from tests.builders.problems import problem_of
from traces import InputError, Trace

# Expert 0 is followed by 2, and 1 by 3.
TRACE = Trace.of(np.array([[[0], [2]], [[1], [3]], [[0], [2]]]), num_experts=4)
GOOD = np.array([[0, 3, 1, 2], [1, 2, 0, 3]])  # stays
BAD = np.array([[0, 3, 1, 2], [0, 3, 1, 2]])  # crosses


def test_only_better_plans_become_the_incumbent() -> None:
    """Offers in any order leave the best, and each improvement is one event."""
    events: list[Event] = []
    search = Search(problem_of(TRACE, "1x2"), Limits(work=1), observe=events.append)
    assert [search.offer(BAD, 0), search.offer(GOOD, 1), search.offer(BAD, 2)] == [1.0, 0.0, 1.0]
    assert search.best is not None
    assert search.best.tolist() == GOOD.tolist()
    assert [event.score for event in events] == [1.0, 0.0]


def test_equal_plans_are_told_apart_by_rank_not_by_time() -> None:
    """Whichever part comes first in rank wins a tie, even if it offers later."""
    swapped = GOOD.reshape(2, 2, 2)[:, ::-1].reshape(2, 4)
    search = Search(problem_of(TRACE, "1x2"), Limits(work=1))
    search.part(1.0, 1).offer(swapped)
    search.part(1.0, 0).offer(GOOD)
    assert search.best is not None
    assert search.best.tolist() == GOOD.tolist()


def test_how_many_offers_fit() -> None:
    """As many as the time that is left is for, once one was made; without a clock there is no end of them."""
    search, open_ended = (Search(problem_of(TRACE, "1x2"), limits) for limits in (Limits(time_s=9.0), Limits(work=1)))
    assert search.offers_that_fit == np.inf
    for each in (search, open_ended):
        each.offer(GOOD)
    search._shared.offer_s = 1.0
    assert 8 < search.offers_that_fit <= 9
    assert search.offers_take_long
    assert open_ended.offers_that_fit == np.inf
    assert not open_ended.offers_take_long


def test_an_invalid_plan_is_a_fault_of_the_solver() -> None:
    """A map that loses an expert is refused loudly."""
    search = Search(problem_of(TRACE, "1x2"), Limits(work=1))
    with pytest.raises(RuntimeError, match="invalid plan"):
        search.offer(np.zeros((2, 4), int))
    assert search.best is None


def test_bounds_only_rise() -> None:
    """A weaker bound is ignored."""
    events: list[Event] = []
    search = Search(problem_of(TRACE, "1x2"), Limits(work=1), observe=events.append)
    for value in (0.1, 0.05, 0.2):
        search.bound(value)
    assert [event.bound for event in events] == [0.1, 0.2]


def test_gap_limit_ends_the_search() -> None:
    """A plan close enough to the bound is good enough."""
    search = Search(problem_of(TRACE, "1x2"), Limits(gap=0.1))
    search.offer(BAD)
    assert search.limit is None
    search.bound(0.95)
    assert search.limit == "gap"
    assert search.done


def test_stall_limit_ends_the_search() -> None:
    """Without a better plan for a while, the search ends; before the first plan it does not."""
    search = Search(problem_of(TRACE, "1x2"), Limits(stall_s=0.05))
    time.sleep(0.06)
    assert search.limit is None
    search.offer(BAD)
    time.sleep(0.06)
    assert search.limit == "no_improvement"


def test_parts_share_time_and_work() -> None:
    """A part gets its share of what remains, and ends without ending the whole."""
    search = Search(problem_of(TRACE, "1x2"), Limits(time_s=10, work=1000))
    part = search.part(0.1, 0)
    assert part.work == 100
    assert part.remaining_s == pytest.approx(1.0, abs=0.1)
    assert part.progress(50) == pytest.approx(0.5, abs=0.01)
    assert part.progress(100) == 1.0
    assert search.part(0.0, 0).done
    assert not search.done


@pytest.mark.parametrize("where", ["part", "interrupt"])
def test_cancel_reaches_all_parts(where: str) -> None:
    """Cancelling anywhere ends everything, and the incumbent stays."""
    interrupt = threading.Event()
    search = Search(problem_of(TRACE, "1x2"), Limits(time_s=10), interrupt=interrupt)
    part, other = search.part(0.5, 0), search.part(0.5, 1)
    search.offer(GOOD)
    if where == "part":
        part.cancel()
    else:
        interrupt.set()
    assert other.progress(0) == 1.0
    assert search.limit == "cancelled"
    assert search.best is not None


def test_all_bad_limits_are_reported_at_once() -> None:
    """Every limit out of range is named."""
    with pytest.raises(InputError) as caught:
        Limits(time_s=0, work=-1, gap=1.5, stall_s=float("nan"))
    assert {item.pointer for item in caught.value.violations} == {
        "/limits/time_s",
        "/limits/work",
        "/limits/gap",
        "/limits/stall_s",
    }


def test_ctrl_c_while_tasks_are_dealt_cancels_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come before all of them have begun: none is waited for to its own end, and none is lost."""
    search = Search(problem_of(TRACE, "1x2"), Limits(time_s=None), workers=2)
    submit, calls = ThreadPoolExecutor.submit, []

    def interrupted(self: ThreadPoolExecutor, *task: Any) -> Any:
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return submit(self, *task)

    def until_cancelled() -> bool:
        begin = time.monotonic()
        while not search.done and time.monotonic() - begin < 20:
            time.sleep(0.001)
        return search.done

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    assert run_together(search, [until_cancelled, until_cancelled]) == [True, True]
