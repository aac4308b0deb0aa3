"""Everything that is worth knowing about a profile, for the command line and the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traces.profile.profile import Profile
from traces.statistics.affinity import affinity_strength
from traces.statistics.gain import gain
from traces.statistics.load import coactivation_share, imbalance, topk_share
from traces.statistics.sufficiency import enough_tokens
from traces.support.errors import InputError

__all__ = ["summary"]


def summary(profile: Profile, *, permutations: int = 20, seed: int = 0) -> dict[str, Any]:
    """Return sizes, load, co-activation, affinity, the check for enough tokens and the judgement, ready for JSON.

    Parameters
    ----------
    profile : Profile
    permutations, seed : int
        See `traces.statistics.affinity_strength`.

    Returns
    -------
    dict
        ``coactivation``, ``affinity`` and ``enough_tokens`` are None where the profile can't tell; ``not_available``
        then names the rule and says why. ``gain`` is what follows; see `traces.statistics.Gain`.
    """
    shares = {str(k): topk_share(profile, k).tolist() for k in sorted({1, profile.top_k, -(-profile.num_experts // 8)})}
    found: dict[str, Any] = {}

    def affinity() -> dict[str, Any]:
        found["affinity"] = affinity_strength(profile, permutations=permutations, seed=seed)
        told: dict[str, Any] = found["affinity"].as_dict()
        return told

    def enough() -> dict[str, Any]:
        found["enough"] = enough_tokens(profile)
        told: dict[str, Any] = found["enough"].as_dict()
        return told

    result: dict[str, Any] = {
        "num_layers": profile.num_layers,
        "num_experts": profile.num_experts,
        "top_k": profile.top_k if profile.affinity is not None else None,
        "layer_ids": profile.layer_ids.tolist(),
        "tokens": profile.tokens,
        "digest": profile.digest,
        "sources": _sources(profile),
        "load": {"max_over_mean": imbalance(profile).tolist(), "topk_share": shares},
        "coactivation": None,
        "affinity": None,
        "enough_tokens": None,
        "not_available": {},
    }
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "coactivation": lambda: dict(
            zip(
                ("top_share", "top_share_expected"),
                (part.tolist() for part in coactivation_share(profile)),
                strict=True,
            )
        ),
        "affinity": affinity,
        "enough_tokens": enough,
    }
    for name, compute in parts.items():
        try:
            result[name] = compute()
        except InputError as error:
            rule = error.violations[0]
            result["not_available"][name] = {"code": rule.code, "detail": rule.detail, "remedy": rule.remedy}
    return result | {"gain": gain(profile, **found, seed=seed).as_dict()}


def _sources(profile: Profile) -> list[dict[str, Any]]:
    """Return the sources of a profile, with a note on each whose content was counted before."""
    known: dict[str, str] = {}
    sources = []
    for item in profile.sources:
        notes = list(item.notes)
        if item.digest in known:
            notes.append(f"{item.source} has the content of {known[item.digest]}: its tokens are counted again.")
        known.setdefault(item.digest, item.source)
        sources.append({"digest": item.digest, "source": item.source, "tokens": item.tokens, "notes": notes})
    return sources
