"""What every placement format promises: plans survive the way through its file, and nothing wrong gets in or out."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement import Plan
from placement.exports import EXPORTS, Context, Document, Export, recognise
from traces import InputError, ModelLayout

NAMES = [export.name for export in EXPORTS]
BY_NAME = {export.name: export for export in EXPORTS}
PLANS = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
MUTATIONS = 400
SNIFFED_AS = {"vllm_pr53022": "vllm_pr49572"}  # the same lists: only the number of rows differs


@st.composite
def cases(draw: st.DrawFn) -> tuple[Plan, ModelLayout]:
    """Return a plan of a whole model: dense layers, perhaps replicas, empty slots, an MTP layer, nodes of any size."""
    seed = draw(st.integers(0, 2**32 - 1))
    gpus, dense, layers = draw(st.integers(1, 6)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    mtp = draw(st.integers(0, 1))
    experts = gpus * draw(st.integers(1, 3))
    spare = draw(st.integers(0, 2)) if gpus > 1 else 0
    size = min(experts // gpus + spare, experts)
    empty = draw(st.booleans())
    same = draw(st.booleans())
    rng = np.random.default_rng(seed)
    rows = [_row(rng, experts, gpus, size, empty=empty) for _ in range(layers + mtp)]
    plan = Plan(
        physical_to_logical_map=np.array([rows[0]] * len(rows) if same else rows),
        layer_ids=np.arange(dense, dense + layers + mtp),
        num_experts=experts,
        num_gpus=gpus,
        slots_per_gpu=size,
        gpus_per_node=(1, gpus - 1) if gpus > 1 and draw(st.booleans()) else (gpus,),
    )
    return plan, ModelLayout.of(dense + layers, first_moe_layer=dense, num_mtp_layers=mtp, num_experts=experts)


def _row(rng: np.random.Generator, experts: int, gpus: int, size: int, *, empty: bool) -> list[int]:
    """Return slots with every expert once, the spare ones empty or with replicas of experts that the GPU lacks."""
    held = [set(part.tolist()) for part in np.array_split(rng.permutation(experts), gpus)]
    row: list[int] = []
    for own in held:
        other = rng.permutation(sorted(set(range(experts)) - own)).tolist()
        spare = size - len(own)
        slots = [*own, *(other[: spare // 2] + [-1] * (spare - spare // 2) if empty else other[:spare])]
        row += rng.permutation(np.array(slots)).tolist()
    return row


def context_of(export: Export, plan: Plan, model: ModelLayout, **more: Any) -> Context:
    """Return what a caller knows of a plan's model and machine."""
    names: dict[str, Any] = {"model_class": "Main", "model_name": "m"} | (
        {"mtp_model_class": "Mtp"} if model.mtp_layers else {}
    )
    taken = {name: value for name, value in names.items() if name in export.takes}
    return Context(model=model, gpus_per_node=plan.gpus_per_node, **taken, **more)


def reasons(export: Export, plan: Plan, model: ModelLayout) -> set[str]:
    """Return the violations that a plan has for a format, found by plain counting."""
    rules, slots, size = export.rules, plan.physical_to_logical_map, plan.slots_per_gpu
    found = set()
    if (slots == -1).any() and not rules.empty:
        found.add("empty_slot")
    if not rules.replicas and (plan.replicas > 1).any():
        found.add("replicas")
    if rules.mtp == "no" and model.mtp_layers:
        found.add("mtp_not_loaded")
    if rules.layers == "none":
        part = slots.reshape(len(slots), plan.num_gpus, size)
        sets = [[frozenset(gpu[gpu >= 0].tolist()) for gpu in row] for row in part]
        if export.name == "deepspeed" and any((row != slots[0]).any() for row in slots):
            found.add("layers_differ")
        if export.name == "vllm_pr34811" and any(row != sets[0] for row in sets):
            found.add("layers_differ")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_plans_survive_or_are_refused(name: str) -> None:
    """What is written is read back as the same placement; what the format can't hold is refused, for that reason."""
    export = BY_NAME[name]
    refusals: list[tuple[set[str], set[str]]] = []
    written_plans: list[Plan] = []

    @PLANS
    @given(cases())
    def check(case: tuple[Plan, ModelLayout]) -> None:
        plan, model = case
        context = context_of(export, plan, model)
        expected = reasons(export, plan, model)
        try:
            written = export.write(plan, context)
        except InputError as error:
            codes = {violation.code if violation.remedy else "" for violation in error.violations}
            if "replicas" in codes:  # which of the replicas one map for all layers would name is arbitrary
                codes, expected = codes | {"layers_differ"}, expected | {"layers_differ"}
            refusals.append((codes, expected))
            return
        assert expected == set()
        written_plans.append(plan)
        document = Document("file", written.content)
        assert recognise(document) is BY_NAME[SNIFFED_AS.get(name, name)]
        assert export.check(document, context)[0].found == []
        again = export.read(document, context)
        assert again.layer_ids.tolist() == plan.layer_ids.tolist()
        assert (again.num_experts, again.gpus_per_node) == (plan.num_experts, plan.gpus_per_node)
        if export.rules.order:
            used = plan if export.name != "deepspeed" else _packed(plan)
            assert again.physical_to_logical_map.tolist() == used.physical_to_logical_map.tolist()
        else:
            assert again.replicas_on_gpu.tolist() == plan.replicas_on_gpu.tolist()

    check()
    assert [pair for pair in refusals if pair[0] != pair[1]] == []
    assert len(written_plans) >= 20
    assert len(refusals) >= 20 or export.name in ("plan", "npz", "csv")


def _packed(plan: Plan) -> Plan:
    """Return the plan with the empty slots of each GPU last, and none of them where no GPU needs it."""
    parts = plan.physical_to_logical_map.reshape(plan.num_layers, plan.num_gpus, -1)
    order = np.argsort(parts == -1, axis=2, kind="stable")
    packed = np.take_along_axis(parts, order, axis=2)
    size = int((packed >= 0).sum(axis=2).max())
    table = packed[:, :, :size].reshape(plan.num_layers, -1)
    return plan.replacing(physical_to_logical_map=table, slots_per_gpu=size)


SAMPLE_MODEL = ModelLayout.of(6, first_moe_layer=2, num_mtp_layers=0, num_experts=8)
SAMPLE = Plan(
    physical_to_logical_map=np.array([[3, 1, 0, 2, 5, 7, 6, 4]] * 4),
    layer_ids=np.arange(2, 6),
    num_experts=8,
    num_gpus=4,
    slots_per_gpu=2,
    gpus_per_node=(2, 2),
)
CONTEXTS = {export.name: context_of(export, SAMPLE, SAMPLE_MODEL) for export in EXPORTS}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_plan_gives_the_same_bytes(name: str) -> None:
    """A file depends on the plan alone, so that it can be compared and cached."""
    export = BY_NAME[name]
    assert export.write(SAMPLE, CONTEXTS[name]).content == export.write(SAMPLE, CONTEXTS[name]).content


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_or_read_right(name: str) -> None:
    """Mutated files end in an InputError, or in a placement that keeps every rule of a plan; never in another error."""
    export = BY_NAME[name]
    content = export.write(SAMPLE, CONTEXTS[name]).content
    rng = random.Random(name)
    refused = 0
    for _ in range(MUTATIONS):
        document = Document("file", _mutated(content, rng))
        for reader in {export.name: export, "sniffed": recognise(document)}.values():
            for context in (CONTEXTS[name], Context(gpus_per_node=(4,)), Context()):
                try:
                    if reader is not None:
                        plan = reader.read(document, context)
                        assert (plan.replicas >= 1).all()
                except InputError:
                    refused += 1
    assert refused >= MUTATIONS / 2


def _mutated(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        kind, place = rng.randrange(5), rng.randrange(max(1, len(data)))
        if kind == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[place : place + rng.randint(1, 12)]
        elif kind == 2:
            data[place:place] = rng.choice([b"9" * 25, b"-1,", b"[", b"{}", b"null", b'"x"', b"\n", b"1e400", b"\xff"])
        elif kind == 3:
            data[place:place] = data[: rng.randint(1, 40)]
        else:
            data = data[:place] or bytearray(b"{")
    return bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_another_experts_count_is_refused(name: str) -> None:
    """A plan for other experts than the model's is neither written nor read."""
    export = BY_NAME[name]
    other = replace(CONTEXTS[name], model=replace(SAMPLE_MODEL, num_experts=9))
    with pytest.raises(InputError):
        export.write(SAMPLE, other)
    document = Document("file", export.write(SAMPLE, CONTEXTS[name]).content)
    with pytest.raises(InputError):
        export.read(document, other)


@pytest.mark.parametrize("name", [name for name in NAMES if BY_NAME[name].rules.covered])
def test_missing_layers_are_refused_or_filled(name: str) -> None:
    """A layer that the plan lacks is named; with fill_missing it gets the contiguous layout, and a note says so."""
    export = BY_NAME[name]
    part = SAMPLE.replacing(physical_to_logical_map=np.array([list(range(8))] * 3), layer_ids=np.array([2, 3, 5]))
    if export.rules.layers != "none":
        with pytest.raises(InputError, match="layer_missing"):
            export.write(part, CONTEXTS[name])
    filled = export.write(part, replace(CONTEXTS[name], fill_missing=True))
    plan = export.read(Document("file", filled.content), CONTEXTS[name])
    assert plan.layer_ids.tolist() == [2, 3, 4, 5]
    assert plan.physical_to_logical_map.tolist() == [list(range(8))] * 4
    assert any("contiguous layout" in note for note in filled.notes)


@pytest.mark.parametrize("name", [name for name in NAMES if BY_NAME[name].rules.distinct])
def test_replicas_on_one_gpu_are_refused(name: str) -> None:
    """Two replicas of an expert on one GPU are refused, unless replicas are refused anyway."""
    export = BY_NAME[name]
    twice = SAMPLE.replacing(
        physical_to_logical_map=np.array([[3, 1, 1, 0, 2, 2, 5, 7, 7, 6, 4, 4]] * 4), slots_per_gpu=3
    )
    with pytest.raises(InputError, match="replicas_on_one_gpu" if export.rules.replicas else "replicas"):
        export.write(twice, CONTEXTS[name])
