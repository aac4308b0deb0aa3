"""What follows a search is done while it runs: loops and libraries are loaded, and the baseline is judged."""

from __future__ import annotations

import logging
import threading
from typing import Final

import numpy as np

from placement import Objective, Plan, Topology
from solvers.judging.replays import replay_both
from solvers.searching.events import Event
from solvers.study import Study
from traces import Trace
from traces.support.parallel import available_cores

__all__ = ["Ahead"]

log = logging.getLogger(__name__)
# Of the time of all cores that the baseline may take from a search, and seconds of a core at most. With 92 x 896
# experts and 30 s, it ran beside a third of the search, for some two seconds less to wait: that is not worth it.
SHARE, MOST_S = 0.1, 2.0
# A core replays so many assignments in a second, times what each of them costs: a pair with each expert of the layer
# before, and about as much as eight pairs to leave home and come back. Measured: 60,000 tokens, 58 layers, top-8: 1.5 s
PAIRS_PER_S: Final = 3e8
PAIRS_OF_DISPATCH: Final = 8


class Ahead:
    """A thread that begins with a search's first event: until then, compiled loops are loaded, one after the other.

    Loading takes half a second of a core, judging the baseline as long as judging any plan: on two cores, who waits for
    the result waits half as long.

    Parameters
    ----------
    study : Study
    workers : int, optional
        Threads of the search; all available cores by default.
    """

    def __init__(self, study: Study, workers: int | None = None) -> None:
        self._study = study
        self._cores = available_cores() if workers is None else workers
        self._thread: threading.Thread | None = None

    def observe(self, _event: Event) -> None:
        """Begin, if nothing has, where a clock limits the search."""
        if self._thread is None and self._study.request.limits.time_s is not None:
            self._thread = threading.Thread(target=self._work, name="ahead")
            self._thread.start()

    def join(self) -> None:
        """Wait for the end, so that nothing is done twice."""
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            judge_tiny()
            spare = SHARE * self._cores * (self._study.request.limits.time_s or 0.0)
            if self._cores > 1 and self.judging_s <= min(spare, MOST_S):
                self._study.judged_baseline  # noqa: B018  # kept, for `Study.compare`
        except Exception:  # it is only ahead of time: whoever needs it gets the error
            log.debug("what follows the search could not be done ahead", exc_info=True)

    @property
    def judging_s(self) -> float:
        """Seconds of a core that it takes to judge a plan, about."""
        profile, held = self._study.problem.profile, self._study.request.hold_out
        tokens = profile.tokens / (1 - (0.5 if held is None else held)) if self._study.held_out else profile.tokens
        return tokens * profile.num_layers * profile.top_k * (profile.top_k + PAIRS_OF_DISPATCH) / PAIRS_PER_S


def judge_tiny() -> None:
    """Judge a tiny plan, which loads what judging a real one needs."""
    plan = Plan.of([[0, 1, 1, 2]] * 2, layer_ids=[0, 1], num_experts=3, gpus_per_node=(2,))
    trace = Trace.of(np.ones((1, 2, 1), np.uint8), num_experts=3)
    objective = Objective(execution="dispatch").settled(capped=False)
    replay_both({"": plan}, {"": trace}, Topology.parse("1x2"), objective, workers=1)
