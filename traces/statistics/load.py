"""How unevenly experts are used, and which ones a token uses together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from traces.profile.checks import counts_only
from traces.profile.profile import Profile
from traces.statistics.samples import check_successors, top_columns
from traces.support.errors import InputError

__all__ = ["coactivation_share", "imbalance", "topk_share"]

Floats = npt.NDArray[np.float64]


def imbalance(profile: Profile) -> Floats:
    """Return ``max_e load[l, e] / mean_e load[l, e]``, (L,); 1 is even.

    It is the lowest imbalance of the GPUs that a plan without redundant experts reaches at E GPUs.
    """
    ratio: Floats = profile.load.max(axis=1) / profile.load.mean(axis=1)
    return ratio


def topk_share(profile: Profile, k: int) -> Floats:
    """Return the share of the load that the `k` hottest experts of each layer carry, (L,).

    Raises
    ------
    InputError
        If `k` is not between 1 and E.
    """
    if not 1 <= k <= profile.num_experts:
        raise InputError.of(
            "k_range", "/k", f"There are no {k} hottest of {profile.num_experts} experts.", "Give a `k` of 1 to E."
        )
    hottest = np.sort(profile.load, axis=1)[:, -k:]
    share: Floats = hottest.sum(axis=1) / profile.load.sum(axis=1)
    return share


def coactivation_share(profile: Profile, successors: int | None = None) -> tuple[Floats, Floats]:
    """Return the share of co-activation that goes to each expert's C strongest partners, and what loads alone give.

    Counts of the whole profile, not debiased: noise raises the first figure where there are few tokens.

    Parameters
    ----------
    profile : Profile
    successors : int, optional
        C; E/8, rounded up, by default.

    Returns
    -------
    observed : (L,) float64
        ``sum_i sum_{j in top C of i} B[l, i, j] / sum_{i != j} B[l, i, j]``; 0 where no token uses two experts.
    expected : (L,) float64
        The same with ``load[l, i] load[l, j]`` in place of ``B[l, i, j]``: experts that are chosen independently.

    Raises
    ------
    InputError
        If the profile holds counts only.
    """
    if profile.coactivation is None:
        raise counts_only("Co-activation")
    columns = check_successors(successors, profile.num_experts)
    shares = np.zeros((2, profile.num_layers))
    for layer, together in enumerate(profile.coactivation):
        load = profile.load[layer]
        for kind, table in enumerate((together.astype(np.float64), np.outer(load, load))):
            np.fill_diagonal(table, 0.0)
            total = table.sum()
            if total:
                shares[kind, layer] = np.take_along_axis(table, top_columns(table, columns), axis=1).sum() / total
    return shares[0], shares[1]
