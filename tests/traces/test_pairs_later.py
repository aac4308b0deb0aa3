"""Matrices over pairs of experts that are counted when they are read."""

import pickle

import numpy as np
import pytest

from tests.builders.traces import full_trace, random_trace
from traces import InputError, Profile, Trace


@pytest.fixture(autouse=True)
def any_size_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the matrices of small models to later as well."""
    monkeypatch.setattr("traces.profile.profile.LARGE_BYTES", 0)


def test_a_profile_is_the_same_whenever_its_pairs_are_counted() -> None:
    """Until they are read, nothing counts them; what is pickled, merged or compared has them."""
    trace = full_trace(3, 200)
    whole, later = Profile.of(trace), Profile.of(trace, pairs_later=True)
    assert later.pairs_later
    assert "when they are asked for" in repr(later)
    assert pickle.loads(pickle.dumps(later)) == whole
    assert not later.pairs_later
    assert later == whole
    assert later + Profile.of(trace, pairs_later=True) == whole + whole


def test_distances_are_counted_at_once() -> None:
    """Only neighbouring layers are left to later."""
    trace = random_trace(1, 100, 4, 6)
    later = Profile.of(trace, distances=(1, 2), pairs_later=True)
    assert later.pairs_later
    assert (later.distant[2] == Profile.of(trace, distances=(2,)).distant[2]).all()


def test_duplicates_are_found_without_pairs() -> None:
    """The check that counting pairs makes on the way is made all the same."""
    ids = np.zeros((4, 2, 2), np.int16)
    with pytest.raises(InputError, match="duplicate_expert"):
        Profile.of(Trace.of(ids, num_experts=4), pairs_later=True)


def test_a_trace_that_changes_is_refused() -> None:
    """Pairs of other tokens than the loads are no profile of anything."""
    ids = random_trace(1, 100, 2, 6)
    tokens = next(iter(ids.read(100))).topk_ids.copy()
    later = Profile.of(Trace.of(tokens, num_experts=6), pairs_later=True)
    tokens[0, 0] = (tokens[0, 0] + 1) % 6
    with pytest.raises(InputError, match="source_changed"):
        _ = later.affinity
