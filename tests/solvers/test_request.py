"""What is asked of a plan or a front: types, ranges, defaults, and all violations at once."""

from __future__ import annotations

from typing import Any

import pytest

from placement import Topology
from solvers import FrontRequest, Limits, Request
from traces import InputError


def violations(kind: type[Request], **asked: Any) -> list[tuple[str, str]]:
    """Return codes and pointers of what a request breaks."""
    with pytest.raises(InputError) as error:
        kind(**{"topology": "1x4", **asked})
    return [(item.code, item.pointer) for item in error.value.violations]


def test_the_topology_is_parsed() -> None:
    """Shorthand and object are the same."""
    assert Request(topology="2x4").machine.num_gpus == 8
    topology = Topology.parse("2x4")
    assert Request(topology=topology).machine is topology


@pytest.mark.parametrize(
    ("given", "expected"), [("sglang", "sglang:static"), ("SGLang:dynamic", "sglang:dynamic"), ("exflow", "exflow")]
)
def test_an_engine_has_its_algorithm(given: str, expected: str) -> None:
    """The default one where none is named, and the engine's own spelling."""
    assert Request(topology="1x4", engine=given).engine == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slots_per_gpu", 0),
        ("slots_per_gpu", -3),
        ("slots_per_gpu", 40_000),
        ("redundant_experts", -1),
        ("expert_bytes", 0),
        ("hold_out", 1.0),
        ("hold_out", -0.5),
        ("hold_out", float("nan")),
        ("seed", -1),
        ("seeds", 0),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    """By the range that the field declares, before anything is read: 0 is no way to ask for a default."""
    assert violations(Request, **{name: value}) == [(f"{name}_range", f"/{name}")]


@pytest.mark.parametrize(("name", "value"), [("seed", 1.5), ("seeds", "3"), ("hold_out", True), ("expert_bytes", [])])
def test_values_of_another_type_are_refused(name: str, value: Any) -> None:
    """Python does not check types; a request does."""
    assert violations(Request, **{name: value}) == [("wrong_type", f"/{name}")]


def test_all_violations_are_told_at_once() -> None:
    """Ranges, the topology and the engine."""
    found = violations(Request, topology="4by8", engine="sglan", seed=-1, hold_out=2)
    assert {pointer for _, pointer in found} >= {"/seed", "/hold_out", "/topology", "/engine"}
    assert ("unknown_engine", "/engine") in found


def test_a_search_for_a_plan_has_ten_seconds() -> None:
    """Where nobody says anything."""
    assert Request(topology="1x4").limits == Limits(time_s=10.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Limits(), Limits(time_s=60.0)),
        (Limits(time_s=10), Limits(time_s=10.0)),
        (Limits(time_s=None), Limits(time_s=None)),
        (Limits(work=500), Limits(work=500, time_s=None)),
        (Limits(gap=0.02), Limits(gap=0.02, time_s=60.0)),
        (Limits(work=500, time_s=3), Limits(work=500, time_s=3.0)),
    ],
)
def test_a_front_has_a_minute_unless_a_time_is_said(given: Limits, expected: Limits) -> None:
    """A time that is said is kept, even if it is the default of a plan; with work, there is none."""
    assert FrontRequest(topology="1x4", limits=given).limits == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"points": 2}, ("points_range", "/points")),
        ({"points": 65}, ("points_range", "/points")),
        ({"num_groups": 0}, ("num_groups_range", "/num_groups")),
        ({"against": "money"}, ("unknown_choice", "/against")),
        ({"against": "bytes_moved"}, ("start_missing", "/start")),
    ],
)
def test_a_front_checks_its_own_fields(asked: dict[str, Any], expected: tuple[str, str]) -> None:
    """Ranges, choices, and a start to count moves from."""
    assert violations(FrontRequest, **asked) == [expected]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", 3),
        ("solver", None),
        ("options", [1]),
        ("topology", 4),
        ("start", "plan.json"),
        ("objective", {"execution": "dispatch"}),
        ("constraints", {"load_cap": 1.1}),
        ("limits", 3),
    ],
)
def test_objects_of_another_kind_are_refused(name: str, value: Any) -> None:
    """With the field's name, before anything is read from them."""
    assert violations(Request, **{name: value}) == [("wrong_type", f"/{name}")]


def test_integers_beyond_every_float_are_out_of_range() -> None:
    """They can't be compared with a range as numbers, and the message does not show all digits."""
    with pytest.raises(InputError) as error:
        Request(topology="1x4", seed=10**400, hold_out=10**400)
    assert {item.code for item in error.value.violations} == {"seed_range", "hold_out_range"}
    assert len(str(error.value)) < 400


def test_equal_requests_have_one_hash() -> None:
    """Options are a mapping, which has none of its own."""
    one, same, other = (Request(topology="1x4", options={"num_groups": n}) for n in (2, 2, 4))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
