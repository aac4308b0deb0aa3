"""Generated traces: the law they follow, determinism, structure, and fitting to a profile."""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.traces import load_counts
from traces.profile.profile import Profile
from traces.statistics import affinity_strength, imbalance
from traces.support.errors import InputError
from traces.synthetic import Synthetic, generate, like
from traces.synthetic.tables import Tables
from traces.synthetic.teams import team_share

SMALL = Synthetic(num_layers=4, num_experts=16, top_k=3, num_tokens=2000, tokens_per_sequence=50)


def all_ids(params: Synthetic, max_tokens: int = 32_768) -> npt.NDArray[np.int64]:
    """Return the topk_ids of the whole trace, read in batches of `max_tokens`."""
    return np.concatenate([batch.topk_ids for batch in generate(params).batches(max_tokens)]).astype(np.int64)


def column(params: Synthetic, name: str) -> npt.NDArray[np.int64]:
    """Return one column of the whole trace."""
    return np.concatenate([getattr(batch, name) for batch in generate(params).batches()])


@pytest.mark.parametrize("affinity", [0.0, 1.5])
def test_experts_are_drawn_in_turn_in_proportion_to_their_weights(affinity: float) -> None:
    """Ordered pairs occur as often as drawing without replacement says (Gumbel top-k, Plackett-Luce)."""
    params = Synthetic(
        num_layers=1, num_experts=5, top_k=2, num_tokens=400_000, topics=1, affinity=affinity, skew=1.0, seed=3
    )
    weight = Tables.of(params).weight[0, 0]
    ids = all_ids(params)[:, 0]
    for a, b in itertools.permutations(range(5), 2):
        expected = weight[a] / weight.sum() * weight[b] / (weight.sum() - weight[a])
        assert np.mean((ids[:, 0] == a) & (ids[:, 1] == b)) == pytest.approx(expected, abs=0.004)


def test_the_slow_draw_follows_the_same_law() -> None:
    """When one expert has nearly all the weight, the remaining places still go in proportion to the other weights."""
    params = Synthetic(num_layers=1, num_experts=3, top_k=2, num_tokens=200_000, topics=1, affinity=0.0, skew=12.0)
    weight = np.sort(Tables.of(params).weight[0, 0])[::-1]
    second = all_ids(params)[:, 0, 1]
    share = np.sort(np.bincount(second, minlength=3))[::-1] / params.num_tokens
    assert share[0] == pytest.approx(weight[1] / (weight[1] + weight[2]), abs=0.005)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_valid_parameters_give_a_valid_trace_whatever_the_batch_size(data: st.DataObject) -> None:
    """No expert twice, ids in range, and the same tokens in batches of any size."""
    groups, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    limit = data.draw(st.integers(1, groups))
    params = Synthetic(
        num_layers=data.draw(st.integers(1, 4)),
        num_experts=groups * size,
        top_k=data.draw(st.integers(1, limit * size)),
        num_tokens=data.draw(st.integers(1, 200)),
        seed=data.draw(st.integers(0, 2**63 - 1)),
        topics=data.draw(st.integers(2, 9)),
        dimensions=data.draw(st.integers(1, 5)),
        balance=data.draw(st.floats(0, 1)),
        affinity=data.draw(st.floats(0, 20)),
        skew=data.draw(st.floats(0, 20)),
        groups=groups,
        group_limit=limit,
        drift=data.draw(st.floats(0, 1)),
        tokens_per_sequence=data.draw(st.integers(1, 50)),
        decode_share=data.draw(st.floats(0, 1)),
        source_ranks=data.draw(st.integers(0, 5)),
    )
    whole = all_ids(params)  # batches() checks every batch
    assert whole.shape == (params.num_tokens, params.num_layers, params.top_k)
    np.testing.assert_array_equal(all_ids(params, data.draw(st.integers(1, 201))), whole)


def test_a_trace_can_be_read_again() -> None:
    """Two readings of one trace are equal."""
    trace = generate(SMALL)
    first, second = (np.concatenate([batch.topk_ids for batch in trace.batches()]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_number_of_threads_does_not_change_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core or three, the tokens are the same."""
    whole = all_ids(SMALL)
    for cores in (1, 3):
        monkeypatch.setattr("traces.synthetic.generator.available_cores", lambda cores=cores: cores)
        np.testing.assert_array_equal(all_ids(SMALL), whole)


def test_seeds_give_different_traces_and_digests() -> None:
    """Another seed is another trace."""
    other = replace(SMALL, seed=1)
    assert generate(SMALL).digest != generate(other).digest
    assert (all_ids(SMALL) != all_ids(other)).any()


def test_the_generator_has_not_changed() -> None:
    """A change of the model must raise MODEL_VERSION, and change this value with it."""
    params = replace(SMALL, affinity=0.0, skew=0.0, balance=0.0, num_tokens=100)
    ids = np.ascontiguousarray(all_ids(params).astype(np.uint8))
    assert hashlib.sha256(ids.tobytes()).hexdigest()[:16] == "ba3bfa5d54bc48d0"


def test_memory_is_that_of_one_batch() -> None:
    """A trace of 10^12 tokens opens at once and reads its first batches in a few megabytes."""
    trace = generate(replace(SMALL, num_tokens=10**12))
    next(trace.batches(1000))
    tracemalloc.start()
    try:
        for _ in itertools.islice(trace.batches(1000), 50):
            pass
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_tokens_stay_within_their_groups() -> None:
    """With a limit of 2 groups, no token uses a third one; without, some do."""
    params = Synthetic(num_layers=3, num_experts=32, top_k=6, num_tokens=2000, groups=8, group_limit=2)
    used = [
        np.array([len(set(row)) for row in all_ids(p)[:, 1] // 4]) for p in (params, replace(params, group_limit=None))
    ]
    assert used[0].max() == 2
    assert used[1].max() > 2


def test_ids_are_as_small_as_they_can_be() -> None:
    """uint8 up to 256 experts, uint16 above."""
    for experts, dtype in ((256, np.uint8), (257, np.uint16)):
        params = replace(SMALL, num_experts=experts)
        assert next(generate(params).batches()).topk_ids.dtype == dtype


def test_skew_makes_the_load_uneven() -> None:
    """Imbalance rises with skew, from about 1 at 0."""
    even, skewed = (
        imbalance(Profile.of(generate(replace(SMALL, affinity=0.0, skew=skew, num_tokens=20_000)))).mean()
        for skew in (0.0, 1.0)
    )
    assert even < 1.1 < 2.0 < skewed


def test_balance_makes_the_load_follow_the_popularity() -> None:
    """At balance 1, first choices over all topics go by popularity alone, whatever the topics prefer."""
    params = Synthetic(num_layers=3, num_experts=16, top_k=1, num_tokens=1, topics=64, skew=1.0, balance=1.0)
    weight = Tables.of(params).weight
    load = (weight / weight.sum(axis=2, keepdims=True)).mean(axis=1)
    popularity = 1 / np.arange(1, 17)
    for layer in range(3):
        np.testing.assert_allclose(np.sort(load[layer])[::-1], popularity / popularity.sum(), rtol=0.02)


def test_few_dimensions_make_teams_of_experts() -> None:
    """At about the same strength, four teams keep more in 2 dimensions than in 32, and a quarter without affinity."""
    few, many, none = (
        Profile.of(generate(replace(SMALL, num_tokens=5000, dimensions=dimensions, affinity=affinity, skew=0.0)))
        for dimensions, affinity in ((2, 1.4), (32, 3.0), (2, 0.0))
    )
    assert affinity_strength(few).overall == pytest.approx(affinity_strength(many).overall, rel=0.2)
    assert team_share(few) > team_share(many) + 0.02
    assert team_share(none) == pytest.approx(0.25, abs=0.02)


def test_drift_changes_the_mix_of_topics_over_the_trace() -> None:
    """With full drift, the loads of the first and the last fifth differ far more than without."""

    def change(drift: float) -> float:
        ids = all_ids(
            Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=50_000, affinity=2.0, drift=drift, topics=8)
        )
        first, last = (
            np.concatenate(
                [np.bincount(part[:, layer].ravel(), minlength=16) / part[:, layer].size for layer in range(4)]
            )
            for part in (ids[:10_000], ids[-10_000:])
        )
        return float(np.abs(first - last).sum() / 2 / 4)

    assert change(1.0) > 3 * change(0.0)


def test_columns_describe_the_sequences() -> None:
    """seq_id, token_pos and phase follow the length of the sequences; a sequence has one source rank."""
    params = replace(SMALL, num_tokens=1020, decode_share=0.3, source_ranks=3)
    rows = np.arange(1020)
    np.testing.assert_array_equal(column(params, "seq_id"), rows // 50)
    np.testing.assert_array_equal(column(params, "token_pos"), rows % 50)
    phase = column(params, "phase")
    np.testing.assert_array_equal(phase[:1000], rows[:1000] % 50 >= 35)
    assert phase[1000:].sum() == 6  # the last sequence is short: 30 % of 20
    rank = column(params, "source_rank")
    assert set(rank) == {0, 1, 2}
    assert all(len(set(rank[start : start + 50])) == 1 for start in range(0, 1020, 50))


def test_source_ranks_are_left_out_unless_asked_for() -> None:
    """Without ranks there is no such column."""
    assert "source_rank" not in generate(SMALL).columns


def test_all_violations_are_reported_at_once() -> None:
    """Each parameter out of range is named."""
    with pytest.raises(InputError) as caught:
        Synthetic(num_layers=0, num_experts=8, top_k=2, num_tokens=-1, affinity=float("nan"), drift=2.0, seed=-1)
    pointers = {violation.pointer for violation in caught.value.violations}
    assert pointers == {"/num_layers", "/num_tokens", "/affinity", "/drift", "/seed"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"top_k": 17}, "top_k_range"),
        ({"groups": 3}, "groups_divide"),
        ({"groups": 4, "group_limit": 5}, "group_limit_range"),
        ({"groups": 8, "group_limit": 1}, "group_limit_range"),
        ({"topics": 1, "drift": 0.5}, "drift_topics"),
        ({"num_layers": 4096, "topics": 4096}, "tables_too_large"),
        ({"top_k": 2.5}, "not_an_integer"),
        ({"skew": "much"}, "not_a_number"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(change: dict[str, object], code: str) -> None:
    """Each rule between parameters has its code."""
    with pytest.raises(InputError) as caught:
        replace(SMALL, **change)  # type: ignore[arg-type]  # wrong types are the point
    assert [violation.code for violation in caught.value.violations] == [code]


SOURCE = Synthetic(
    num_layers=4, num_experts=32, top_k=4, num_tokens=20_000, topics=32, dimensions=4, skew=0.4, tokens_per_sequence=100
)


@pytest.mark.slow
def test_like_matches_load_and_affinity() -> None:
    """The fitted trace has the affinity strength, load imbalance and teams of the source, but for few experts' luck."""
    source = Profile.of(generate(SOURCE))
    fitted = like(source, num_tokens=20_000, seed=1)
    made = Profile.of(generate(fitted))
    assert affinity_strength(made).overall == pytest.approx(affinity_strength(source).overall, rel=0.2)
    assert imbalance(made).mean() == pytest.approx(imbalance(source).mean(), rel=0.25)
    assert team_share(made) == pytest.approx(team_share(source), abs=0.06)
    assert fitted.tokens_per_sequence == 100


@pytest.mark.slow
def test_like_carries_over_to_other_sizes() -> None:
    """The normalised strength is matched at the sizes asked for."""
    source = Profile.of(generate(SOURCE))
    fitted = like(source, num_layers=7, num_experts=64, top_k=6, num_tokens=20_000)
    assert (fitted.num_layers, fitted.num_experts, fitted.top_k) == (7, 64, 6)
    made = affinity_strength(Profile.of(generate(fitted))).normalised.mean()
    assert made == pytest.approx(affinity_strength(source).normalised.mean(), rel=0.25)


def test_like_invents_no_affinity() -> None:
    """Independent layers stay independent."""
    source = Profile.of(generate(replace(SOURCE, affinity=0.0)))
    made = affinity_strength(Profile.of(generate(like(source, num_tokens=10_000))))
    assert made.overall < 0.002


def test_like_needs_tokens() -> None:
    """Loads alone can't be fitted."""
    counts = load_counts(np.ones((2, 4)))
    with pytest.raises(InputError, match="counts_only"):
        like(Profile.of(counts))
