"""What stays in memory and what is fetched ahead: policies by name, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["POLICIES", "Policy", "PolicyName", "policy_of"]

PolicyName = Literal["static", "lru", "lfu", "lfu_aged", "predicted", "by_load", "pregated", "belady"]
Rule = Literal["fixed", "recency", "frequency", "aged", "belady"]
Ahead = Literal["transitions", "load", "known"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A way to choose what stays.

    Attributes
    ----------
    name : str
    summary : str
    rule : str
        What ranks experts; of the cache and of what a step used, the highest ranks stay.
    ahead : str or None
        What tells the experts of a later layer, which are fetched into a buffer; None: nothing is prefetched.
    practical : bool
        Whether an engine can follow it: it needs neither the future nor a model that was trained for it.
    """

    name: PolicyName
    summary: str
    rule: Rule
    ahead: Ahead | None = None
    practical: bool = True


POLICIES: Mapping[PolicyName, Policy] = {
    policy.name: policy
    for policy in (
        Policy(name="static", summary="the experts that save most by what the past used stay for good", rule="fixed"),
        Policy(name="lru", summary="what was used last stays", rule="recency"),
        Policy(name="lfu", summary="what was used most often stays, the past counted", rule="frequency"),
        Policy(
            name="lfu_aged",
            summary="the same, uses counting half after a half-life, and by what a transfer takes",
            rule="aged",
        ),
        Policy(
            name="predicted",
            summary="lfu_aged, and a buffer for what transitions from known layers make likely",
            rule="aged",
            ahead="transitions",
        ),
        Policy(
            name="by_load",
            summary="lfu_aged, and a buffer for what later layers used most of late",
            rule="aged",
            ahead="load",
        ),
        Policy(
            name="pregated",
            summary="lfu_aged, and a buffer for what the model's router tells ahead",
            rule="aged",
            ahead="known",
            practical=False,
        ),
        Policy(
            name="belady",
            summary="what is needed again soonest stays: no policy moves less",
            rule="belady",
            practical=False,
        ),
    )
}
assert set(POLICIES) == set(get_args(PolicyName))


def policy_of(name: PolicyName) -> Policy:
    """Return a policy by its name."""
    return POLICIES[name]
