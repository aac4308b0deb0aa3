"""Statistics of profiles: no affinity where there is none, the planted one where there is, whatever the sample."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.traces import load_counts
from traces.profile.profile import Profile
from traces.statistics import affinity_strength, coactivation_share, enough_tokens, imbalance, summary, topk_share
from traces.support.errors import InputError
from traces.synthetic import Synthetic, generate
from traces.trace import Trace

DATA = Path(os.environ.get("MOE_PLACEMENT_DATA", Path(__file__).parents[3] / "shared" / "data"))
PLANTED = Synthetic(
    num_layers=4,
    num_experts=64,
    top_k=6,
    num_tokens=20_000,
    topics=16,
    dimensions=16,
    affinity=2.0,
    skew=0.3,
    balance=0.0,
    tokens_per_sequence=4,
)
INDEPENDENT = replace(PLANTED, affinity=0.0)


def profile_of(params: Synthetic, **changes: Any) -> Profile:
    """Return the profile of the generated trace, some parameters changed."""
    return Profile.of(generate(replace(params, **changes)))


def counts_profile() -> Profile:
    """Return a profile of 2 layers x 4 experts made from counts."""
    load = np.array([[1.0, 2.0, 3.0, 2.0], [4.0, 0.0, 0.0, 4.0]])
    return Profile.of(load_counts(load))


@pytest.mark.parametrize(("experts", "tokens"), [(64, 100), (64, 20_000), (256, 200), (256, 2000)])
def test_independent_layers_have_no_affinity(experts: int, tokens: int) -> None:
    """Whatever the sample, the debiased strength is within noise of 0 although the raw information is not."""
    result = affinity_strength(profile_of(INDEPENDENT, num_layers=9, num_experts=experts, num_tokens=tokens))
    assert np.abs(result.z).max() < 5  # 8 values of Student's t with 19 degrees of freedom
    assert abs(result.overall_z) < 4
    assert abs(result.overall) < 0.03 * result.observed.mean()
    assert np.abs(result.top_share - result.top_share_null).max() < 0.03


def test_skewed_loads_are_no_affinity() -> None:
    """Hot experts follow each other often, but not more often than their loads say."""
    result = affinity_strength(profile_of(INDEPENDENT, skew=1, num_tokens=4000))
    assert np.abs(result.z).max() < 5
    assert result.top_share.mean() > 0.3


def test_planted_affinity_is_found() -> None:
    """Strength, z-score and successor share are clearly above the null in every layer pair, from few tokens on."""
    result = affinity_strength(profile_of(PLANTED, num_tokens=500))
    assert result.strength.min() > 0.1
    assert result.z.min() > 20
    assert (result.top_share - result.top_share_null).min() > 0.05


def test_more_planted_affinity_is_more_strength() -> None:
    """The statistic rises with what was planted."""
    strengths = [
        affinity_strength(profile_of(PLANTED, affinity=float(size), num_tokens=3000)).overall for size in range(4)
    ]
    assert strengths == sorted(strengths)
    assert strengths[3] > 4 * strengths[1] > 0


def test_the_strength_does_not_depend_on_the_number_of_tokens() -> None:
    """500 and 20,000 tokens agree within 10 %, where the raw information differs by more than 40 %."""
    few, many = (affinity_strength(profile_of(PLANTED, num_tokens=tokens)) for tokens in (500, 20_000))
    assert few.overall == pytest.approx(many.overall, rel=0.10)
    assert few.observed.mean() > 1.4 * many.observed.mean()


def test_a_permutation_of_experts_changes_nothing() -> None:
    """Information does not depend on how experts are numbered."""
    ids = np.concatenate([batch.topk_ids for batch in generate(replace(PLANTED, num_tokens=1000)).batches()])
    relabel = np.random.default_rng(0).permutation(64)
    plain, relabelled = (affinity_strength(Profile.of(Trace.of(x, num_experts=64))) for x in (ids, relabel[ids]))
    assert relabelled.observed.mean() == pytest.approx(
        plain.observed.mean(), rel=0.05
    )  # another sample order, same sample
    assert relabelled.overall == pytest.approx(plain.overall, rel=0.05)


def test_copied_layers_have_all_the_information() -> None:
    """With top-1 and layer 1 equal to layer 0, the strength is the entropy, and every pair goes to one successor."""
    ids = np.random.default_rng(0).integers(0, 8, (5000, 1, 1))
    result = affinity_strength(Profile.of(Trace.of(np.repeat(ids, 2, axis=1), num_experts=8)))
    assert result.observed[0] == pytest.approx(result.entropy[0])
    assert result.normalised[0] == pytest.approx(1.0, abs=0.01)
    assert result.top_share[0] == pytest.approx(1.0)


def test_the_seed_decides() -> None:
    """Same seed, same null; another seed, another one."""
    profile = profile_of(PLANTED, num_tokens=300)
    first, again, other = (affinity_strength(profile, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.null_mean, again.null_mean)
    assert (first.null_mean != other.null_mean).any()


def test_missing_entries_are_left_out() -> None:
    """Entries of -1 count nowhere."""
    ids = np.concatenate([batch.topk_ids for batch in generate(replace(PLANTED, num_tokens=2000)).batches()]).astype(
        int
    )
    ids[::3, 1, 4:] = -1
    result = affinity_strength(Profile.of(Trace.of(ids, num_experts=64)))
    assert np.isfinite(result.strength).all()
    assert result.strength.min() > 0.1


def test_parameters_out_of_range_are_refused() -> None:
    """Permutations below 2 and impossible numbers of successors raise."""
    profile = profile_of(PLANTED, num_tokens=100)
    with pytest.raises(InputError, match="permutations_range"):
        affinity_strength(profile, permutations=1)
    with pytest.raises(InputError, match="successors_range"):
        affinity_strength(profile, successors=65)


def test_counts_give_no_affinity() -> None:
    """Affinity, co-activation and the check for tokens raise for profiles of counts."""
    for function in (affinity_strength, enough_tokens, coactivation_share):
        with pytest.raises(InputError, match="counts_only"):
            function(counts_profile())


def test_one_layer_and_small_samples_are_refused() -> None:
    """Without a second layer, or without a sample, there is nothing to measure."""
    with pytest.raises(InputError, match="single_layer"):
        affinity_strength(profile_of(PLANTED, num_layers=1, num_tokens=100))
    with pytest.raises(InputError, match="sample_too_small"):
        enough_tokens(Profile.of(generate(replace(PLANTED, num_tokens=100)), sample_tokens=0))


def test_few_tokens_are_not_enough_and_many_are() -> None:
    """The verdict goes from "not enough" to "enough", and the error falls."""
    weak = replace(PLANTED, affinity=1.5)
    few, many = (enough_tokens(profile_of(weak, num_tokens=tokens)) for tokens in (200, 30_000))
    assert (few.verdict, many.verdict) == ("not enough", "enough")
    assert few.reliability < 0.7 < 0.9 <= many.reliability
    assert few.standard_error.mean() > 5 * many.standard_error.mean()
    assert few.counts_per_cell.mean() < many.counts_per_cell.mean()


def test_the_tokens_needed_are_about_right() -> None:
    """Recording as many tokens as a small recording says brings the reliability close to the 0.9 it is meant for."""
    weak = replace(PLANTED, affinity=1.5)
    needed = enough_tokens(profile_of(weak, num_tokens=1000)).tokens_needed
    assert 1000 < needed < 30_000
    assert enough_tokens(profile_of(weak, num_tokens=needed, seed=0)).reliability == pytest.approx(0.9, abs=0.06)


def test_enough_tokens_can_show_that_there_is_nothing() -> None:
    """Independent layers are "not enough" while noise could pass for affinity, and "enough" once it can't."""
    few, many = (enough_tokens(profile_of(INDEPENDENT, num_tokens=tokens)) for tokens in (1000, 60_000))
    assert few.verdict == "not enough"
    assert many.verdict == "enough"
    assert many.reliability < 0.5
    assert many.noise_share <= 0.01


def test_sequences_are_split_whole() -> None:
    """Long sequences with topics of their own carry over less than their tokens suggest."""
    params = replace(PLANTED, topics=64, tokens_per_sequence=500, topics_per_sequence=1)
    ids = np.concatenate([batch.topk_ids for batch in generate(params).batches()])
    by_sequence = enough_tokens(Profile.of(generate(params)))
    by_token = enough_tokens(Profile.of(Trace.of(ids, num_experts=64)))
    assert (by_sequence.split_by, by_token.split_by) == ("sequences", "tokens")
    assert by_sequence.reliability < by_token.reliability
    assert by_sequence.tokens_needed > by_token.tokens_needed


def test_load_figures_of_a_small_example() -> None:
    """Imbalance and shares by hand."""
    profile = counts_profile()
    np.testing.assert_allclose(imbalance(profile), [1.5, 2.0])
    np.testing.assert_allclose(topk_share(profile, 1), [3 / 8, 1 / 2])
    np.testing.assert_allclose(topk_share(profile, 2), [5 / 8, 1.0])
    np.testing.assert_allclose(topk_share(profile, 4), [1.0, 1.0])
    for k in (0, 5):
        with pytest.raises(InputError, match="k_range"):
            topk_share(profile, k)


@settings(max_examples=25, deadline=None)
@given(
    load=st.lists(st.lists(st.integers(1, 1000), min_size=5, max_size=5), min_size=1, max_size=3),
    scale=st.integers(2, 1000),
)
def test_shares_rise_to_one_and_ignore_the_scale(load: list[list[int]], scale: int) -> None:
    """topk_share rises with k up to 1; both load figures are the same for any multiple of the load."""
    profiles = [Profile.of(load_counts(np.array(load, float) * factor)) for factor in (1, scale)]
    shares = np.array([topk_share(profiles[0], k) for k in range(1, 6)])
    assert (np.diff(shares, axis=0) > 0).all()
    np.testing.assert_allclose(shares[-1], 1.0)
    np.testing.assert_allclose(imbalance(profiles[0]), imbalance(profiles[1]))
    np.testing.assert_allclose(shares[1], topk_share(profiles[1], 2))


def test_coactivation_of_fixed_teams() -> None:
    """Experts that always come in the same pairs have one partner each; loads alone would spread them evenly."""
    team = np.random.default_rng(0).integers(0, 4, 3000)
    ids = np.stack([2 * team, 2 * team + 1], axis=1)[:, None, :]
    observed, expected = coactivation_share(Profile.of(Trace.of(ids, num_experts=8)), successors=1)
    assert observed[0] == 1.0
    assert expected[0] == pytest.approx(1 / 7, abs=0.01)


def test_the_summary_is_json() -> None:
    """The bundle survives JSON, and holds the figures of the functions."""
    profile = profile_of(PLANTED, num_tokens=1000)
    bundle = json.loads(json.dumps(summary(profile), allow_nan=False))
    assert bundle["affinity"]["overall"]["strength_bits"] == pytest.approx(affinity_strength(profile).overall)
    assert bundle["enough_tokens"]["verdict"] == enough_tokens(profile).verdict
    assert bundle["load"]["max_over_mean"] == pytest.approx(imbalance(profile).tolist())
    assert bundle["not_available"] == {}


def test_the_summary_of_counts_says_what_is_missing() -> None:
    """Loads are reported; the rest is null, with the reason."""
    bundle = json.loads(json.dumps(summary(counts_profile()), allow_nan=False))
    assert bundle["affinity"] is bundle["enough_tokens"] is bundle["coactivation"] is None
    assert {item["code"] for item in bundle["not_available"].values()} == {"counts_only"}
    assert bundle["load"]["topk_share"]["1"] == pytest.approx([3 / 8, 1 / 2])


@pytest.mark.parametrize(("name", "experts"), [("deepseek_v2_lite", 64), ("gpt_oss_20b", 32)])
def test_real_traces_have_affinity_and_enough_tokens(name: str, experts: int) -> None:
    """Real routers show about half a bit in every layer pair, the same from 1,000 tokens as from all."""
    path = DATA / f"{name}.npz"
    if not path.exists():
        pytest.skip("the recorded traces are not here: set MOE_PLACEMENT_DATA to their folder")
    with np.load(path) as arrays:
        ids, seq_id = arrays["topk_ids"], arrays["seq_id"]
    profile = Profile.of(Trace.of(ids, num_experts=experts, seq_id=seq_id))
    whole = affinity_strength(profile, permutations=3)
    assert whole.strength.min() > 0.2
    assert whole.z.min() > 100
    some = np.sort(np.random.default_rng(0).choice(len(ids), 1000, replace=False))
    part = affinity_strength(Profile.of(Trace.of(ids[some], num_experts=experts)))
    assert part.overall == pytest.approx(whole.overall, rel=0.1)
    assert enough_tokens(profile).verdict == "enough"
