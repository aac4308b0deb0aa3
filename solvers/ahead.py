"""What follows a search is loaded while it runs."""

from __future__ import annotations

import logging
import threading

import numpy as np

from placement import Objective, Plan, Topology
from solvers.replays import replay_both
from traces import Trace

__all__ = ["load_ahead"]

log = logging.getLogger(__name__)


def load_ahead() -> None:
    """Load, on a thread, the libraries and compiled loops that judge a plan, by judging a tiny one.

    This takes half a second of a core once, which nobody has to wait for after the search.
    """
    threading.Thread(target=_judge, name="load-ahead").start()


def _judge() -> None:
    try:
        plan = Plan.of([[0, 1, 1, 2]] * 2, layer_ids=[0, 1], num_experts=3, gpus_per_node=(2,))
        trace = Trace.of(np.ones((1, 2, 1), np.uint8), num_experts=3)
        objective = Objective(execution="dispatch").settled(capped=False)
        replay_both({"": plan}, {"": trace}, Topology.parse("1x2"), objective, workers=1)
    except Exception:  # it is only ahead of time: whoever needs it gets the error
        log.debug("what follows the search could not be loaded ahead", exc_info=True)
