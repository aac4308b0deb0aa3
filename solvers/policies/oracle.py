"""A sequence of plans found in hindsight: what no policy that does not know the future can be expected to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement import Plan
from solvers.policies.setting import Setting

__all__ = ["best_sequence"]

KEPT = 8  # cheapest plans that are followed on, beside those that policies run


@dataclass(frozen=True, kw_only=True)
class _State:
    """Plans so far, and what they took."""

    cost: float
    path: tuple[Plan, ...]


def best_sequence(setting: Setting, paths: Sequence[Sequence[Plan]]) -> list[Plan]:
    """Return a sequence of plans, (W), that is at most as dear as each of those given, moves and stalls included.

    It knows all windows. At each it may keep a plan that it ran before, take one that a policy runs there, one made
    from this very window, or one made from the whole series: dynamic programming over the cheapest of them.

    Parameters
    ----------
    setting : Setting
    paths : sequence of sequences of Plan
        The plans of each policy by window.
    """
    series, passes = setting.series, setting.request.window_passes
    whole = setting.settled(setting.start, setting.plan(series.shares.mean(axis=0)))
    own = [setting.start]
    for window in range(1, len(series)):
        own.append(setting.settled(own[-1], setting.plan(series.shares[window])))
    offers: list[Sequence[Plan]] = [*paths, own, [setting.start, *[whole] * (len(series) - 1)]]
    first = _State(cost=passes * setting.step(setting.start, 0).ms, path=(setting.start,))
    states = {_key(setting.start): first}
    for window in range(1, len(series)):
        cheapest = min(states.values(), key=lambda state: state.cost)
        running = {_key(offer[window - 1]) for offer in offers}
        following: dict[bytes, _State] = {}

        def reach(plan: Plan, before: _State, at: int = window, into: dict[bytes, _State] = following) -> None:
            move = setting.move(before.path[-1], plan).ms
            cost = before.cost + move + passes * setting.step(plan, at).ms
            if _key(plan) not in into or cost < into[_key(plan)].cost:
                into[_key(plan)] = _State(cost=cost, path=(*before.path, plan))

        ranked = sorted(states.items(), key=lambda item: item[1].cost)
        for number, (key, state) in enumerate(ranked):
            if number < KEPT or key in running:
                reach(state.path[-1], state)
        for offer in offers:
            reach(offer[window], cheapest)
            reach(offer[window], states[_key(offer[window - 1])])
        states = following
    return list(min(states.values(), key=lambda state: state.cost).path)


def _key(plan: Plan) -> bytes:
    return plan.physical_to_logical_map.tobytes()
