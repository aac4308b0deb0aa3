"""How far experts fall into teams: the share of transitions that equal teams of experts can keep."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from traces.profile.checks import counts_only
from traces.profile.profile import Profile

__all__ = ["team_share"]

SWEEPS = 8


def team_share(profile: Profile, teams: int = 4, *, restarts: int = 2, seed: int = 0) -> float:
    """Return the share of the pairs of consecutive layers that stay within a team, teams being chosen for it.

    Each layer is divided into equal teams by linear assignment, its neighbours fixed, sweep after sweep. It is a quick
    statistic to compare traces by, not a plan: neither optimal nor mindful of loads.

    Parameters
    ----------
    profile : Profile
    teams, restarts, seed : int
        Restarts begin at random teams; the best counts.

    Returns
    -------
    float
        ``sum A[l, i, j] [team(l, i) = team(l + 1, j)] / sum A``; ``1 / teams`` is to be had without any affinity.

    Raises
    ------
    InputError
        If the profile holds counts only.
    """
    if profile.affinity is None:
        raise counts_only("The share of teams")
    layers, experts = profile.num_layers, profile.num_experts
    seats = np.arange(experts) % teams
    pairs = profile.affinity.astype(np.float64)
    best = 0.0
    for restart in range(restarts):
        rng = np.random.default_rng([seed, restart])
        member = np.eye(teams)[np.array([rng.permutation(seats) for _ in range(layers)])]  # (L, E, teams), 0 or 1
        for _ in range(SWEEPS):
            for layer in range(layers):
                gain = np.zeros((experts, teams))
                if layer:
                    gain += pairs[layer - 1].T @ member[layer - 1]
                if layer + 1 < layers:
                    gain += pairs[layer] @ member[layer + 1]
                chosen = linear_sum_assignment(gain[:, seats], maximize=True)[1]
                member[layer] = np.eye(teams)[seats[chosen]]
        kept = np.einsum("lig,lij,ljg->", member[:-1], pairs, member[1:], optimize=True)
        best = max(best, float(kept) / max(1.0, float(pairs.sum())))
    return best
