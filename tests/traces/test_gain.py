"""Is there anything to gain: what was planted is found, and noise is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.builders.traces import load_counts
from traces import Profile
from traces.statistics import Gain, gain, summary
from traces.synthetic import Synthetic, generate


def judged(**changes: Any) -> Gain:
    """Return the judgement on a generated trace."""
    usual = {"num_layers": 4, "num_experts": 32, "top_k": 4, "num_tokens": 20_000, "tokens_per_sequence": 64}
    return gain(Profile.of(generate(Synthetic(**(usual | changes)))))


def test_planted_affinity_is_worth_a_plan() -> None:
    """Topics join the experts of consecutive layers, and those of one layer."""
    found = judged()
    assert (found.between_layers, found.within_layers) == ("yes", "yes")
    assert found.pairs_above_chance is not None
    assert found.pairs_above_chance > 0.1
    assert found.words.startswith("Yes: 16 % of the pairs of experts in consecutive layers")


def test_random_routing_is_not() -> None:
    """Independent layers and even experts leave nothing to gain."""
    found = judged(affinity=0.0, skew=0.0)
    assert (found.between_layers, found.within_layers, found.balance) == ("no", "no", "no")
    assert found.words.startswith("No: affinity is within noise, and loads are even")


@pytest.mark.parametrize(("skew", "top_k"), [(1.2, 4), (2.0, 4), (1.0, 8)])
def test_skewed_loads_are_balance_alone(skew: float, top_k: int) -> None:
    """Hot experts are neither affinity nor teams, though they meet often; a plan can only even out their loads."""
    found = judged(affinity=0.0, skew=skew, top_k=top_k)
    assert (found.between_layers, found.within_layers, found.balance) == ("no", "no", "yes")
    assert found.load > 1.5
    assert found.words.startswith("Loads alone: ")


def test_weak_affinity_is_not_called_noise() -> None:
    """It is there beyond doubt, and still not worth a plan."""
    found = judged(affinity=0.5, skew=0.0)
    assert found.affinity_z is not None
    assert found.affinity_z > 5
    assert found.words.startswith("No: affinity is weak (1.")


@pytest.mark.parametrize("tokens", [60, 300, 2_000])
def test_few_tokens_can_not_tell(tokens: int) -> None:
    """Random routing looks like something in few tokens; neither yes nor no is said of it."""
    found = judged(affinity=0.0, skew=0.0, num_tokens=tokens)
    assert (found.between_layers, found.balance) == ("unknown", "unknown")
    assert found.within_layers != "yes"
    assert found.words.startswith(f"Too few tokens to tell whether a plan saves traffic between layers ({tokens:,} ")


def test_few_tokens_can_tell_of_loads() -> None:
    """What one expert has beyond any noise is said, whatever is not known of the traffic."""
    found = judged(affinity=0.0, skew=2.0, top_k=1, num_tokens=2_000)
    assert (found.between_layers, found.balance) == ("unknown", "yes")
    assert "Loads alone: experts in order on 8 GPUs give the busiest" in found.words


def test_one_layer_has_teams_only() -> None:
    """There is nothing to follow, but experts that fire together."""
    found = judged(num_layers=1)
    assert (found.between_layers, found.within_layers) == ("unknown", "yes")
    assert "needs" not in found.words
    assert found.words.endswith("without tokens in two layers or more.")


@pytest.mark.parametrize(("spread", "answer"), [(0.8, "yes"), (0.0, "no")])
def test_counts_tell_of_loads(spread: float, answer: str) -> None:
    """Counts per expert know nothing of traffic; 12 experts on 8 GPUs are not unbalanced for that."""
    load = 5_000 * (1 + spread * np.random.default_rng(0).uniform(-1, 1, (3, 12)))
    counts = load_counts(load)
    found = gain(Profile.of(counts))
    assert (found.between_layers, found.within_layers, found.balance) == ("unknown", "unknown", answer)
    assert found.words.startswith({"yes": "Yes, in the loads", "no": "Not in the loads"}[answer])


def test_the_summary_has_the_judgement() -> None:
    """The same, from the figures that the summary has computed."""
    profile = Profile.of(generate(Synthetic(num_layers=3, num_experts=16, top_k=2, num_tokens=4_000)))
    assert summary(profile)["gain"] == gain(profile).as_dict()
