"""Engines' statistics: files made from one known load, slots and ranks shuffled, give that load; damage is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from tests.builders.problems import dispatch
from tests.builders.reading import counts_of, refused
from tests.torch_files import torch_bytes
from traces import InputError, Profile, check, load

LAYERS, EXPERTS, RANKS, SLOTS = 3, 8, 2, 6
RNG = np.random.default_rng(0)
LOAD = RNG.integers(1, 1000, (LAYERS, EXPERTS))
Counts = npt.NDArray[np.int64]


def shuffled_slots(rng: np.random.Generator) -> Counts:
    """Return a map (L, P) with every expert once, and four copies of any."""
    rows = [np.r_[np.arange(EXPERTS), rng.integers(0, EXPERTS, RANKS * SLOTS - EXPERTS)] for _ in range(LAYERS)]
    return np.stack([rng.permutation(row) for row in rows])


def spread(part: Counts, slots: Counts, rng: np.random.Generator) -> Counts:
    """Distribute logical loads (L, E) over the slots at random."""
    physical = np.zeros(slots.shape, np.int64)
    for layer, expert in np.ndindex(part.shape):
        copies = np.flatnonzero(slots[layer] == expert)
        physical[layer, copies] = rng.multinomial(part[layer, expert], np.full(len(copies), 1 / len(copies)))
    return physical


def record(step: int, expert_load: Any, p2l_map: Any, **fields: Any) -> dict[str, Any]:
    """Return a statistics record."""
    kind = {"record_type": "eplb_load_stats", "version": 1, "step": step, "num_ranks": RANKS}
    return kind | {"expert_load": expert_load, "p2l_map": p2l_map} | fields


META = {"record_type": "eplb_load_meta", "version": 1, "model": "m", "num_layers": 3, "num_redundant_experts": 4}


def lines(path: Path, *objects: Any) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(item) + "\n" for item in objects))
    return path


def eplb_stats(path: Path) -> list[dict[str, Any]]:
    """Return records that add up to LOAD, each with a map of its own."""
    rng = np.random.default_rng(1)
    parts = rng.multinomial(LOAD.ravel(), [0.5, 0.3, 0.2]).T.reshape(3, LAYERS, EXPERTS)
    records = []
    for step, part in enumerate(parts):
        slots = shuffled_slots(rng)
        records.append(record(step, spread(part, slots, rng).tolist(), slots.tolist()))
    return records


def test_eplb_statistics_fold_through_the_map_of_their_record(tmp_path: Path) -> None:
    """Maps change from record to record; other records are left out with a note."""
    records = eplb_stats(tmp_path)
    idle = record(9, np.zeros((LAYERS, 12), int).tolist(), records[0]["p2l_map"])
    path = lines(tmp_path / "s.jsonl", META, *records, {"record_type": "bench_run_start"}, idle)
    counts = counts_of(path, layer_ids=[3, 4, 5])
    assert counts.load.tolist() == LOAD.tolist()
    assert counts.layer_ids.tolist() == [3, 4, 5]
    notes = " ".join(counts.provenance.notes)
    assert "changes 3 times" in notes
    assert "1 records of type 'bench_run_start'" in notes
    assert "1 of 4 records hold no tokens" in notes


def test_eplb_statistics_count_steps_that_go_back(tmp_path: Path) -> None:
    """A restarted counter is said; the number of slots may change."""
    identity = [list(range(8))] * 3
    records = [record(5, LOAD.tolist(), identity), *eplb_stats(tmp_path)]
    counts = counts_of(lines(tmp_path / "s.jsonl", *records))
    assert counts.load.tolist() == (2 * LOAD).tolist()
    notes = " ".join(counts.provenance.notes)
    assert "Steps do not rise 1 times" in notes
    assert "physical slots changes 1 times" in notes


ONE = [[5, 1, 2, 0]] * 3
MAP = [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize(
    ("code", "records"),
    [
        ("load_not_finite", [record(0, [[-1, 1, 2, 0]] * 3, MAP)]),
        ("expert_missing", [record(0, ONE, [[0, 1, 2, 40_000]] * 3)]),
        ("id_out_of_range", [record(0, ONE, [[0, 1, 2, -2]] * 3)]),
        ("expert_missing", [record(0, ONE, [[0, 1, 3, 3]] * 3)]),
        ("empty_slot", [record(0, ONE, [[-1, 0, 1, 2]] * 3)]),
        ("load_shape", [record(0, ONE, [[0, 1, 2]] * 3)]),
        ("load_shape", [record(0, [[5, 1], [2]], [[0, 1], [1]])]),
        ("load_shape", [record(0, [], [])]),
        ("load_shape", [record(0, "many", MAP)]),
        ("value_type", [record(0, [[5, 1, 2, 0.5]] * 3, MAP)]),
        ("value_type", [record(0, [[5, 1, 2, True]] * 3, MAP)]),
        ("damaged_file", [record(0, [[5, 1, 2, 1 << 70]] * 3, MAP)]),
        ("value_type", [record(0, ONE, MAP) | {"step": None}]),
        ("version_unknown", [record(0, ONE, MAP, version=2)]),
        ("layer_missing", [record(0, ONE, MAP), record(1, ONE[:2], MAP[:2])]),
        ("layer_missing", [META | {"num_layers": 4}, record(0, ONE, MAP)]),
        ("num_experts_differ", [META, record(0, ONE, MAP)]),
        ("records_differ", [META, META | {"num_layers": 4}]),
        ("zero_tokens", [META]),
        ("header_type", [META | {"num_redundant_experts": -1}]),
    ],
)
def test_eplb_statistics_that_are_refused(tmp_path: Path, code: str, records: list[dict[str, Any]]) -> None:
    """Wrong shapes, types, ids, versions and incomplete maps name the line."""
    assert "s.jsonl" in refused(code, lines(tmp_path / "s.jsonl", *records))


def test_counts_refuse_affinity_end_to_end(tmp_path: Path) -> None:
    """A plan for traffic between layers can't be made from recorded statistics, but one for balance can."""
    from placement import Objective, Problem, Topology
    from solvers import Limits, solve

    profile = Profile.of(counts_of(lines(tmp_path / "s.jsonl", *eplb_stats(tmp_path))))
    topology = Topology.parse("1x4")
    with pytest.raises(InputError, match="no tokens"):
        Problem(profile=profile, topology=topology, objective=Objective(execution="context_coherent"), slots_per_gpu=2)
    problem = Problem(
        profile=profile,
        topology=topology,
        objective=dispatch(dedup="none"),
        slots_per_gpu=2,
    )
    assert solve(problem, "eplb", limits=Limits(work=100)).plan is not None


def tensorrt(folder: Path, **changes: Any) -> Path:
    """Write statistics of two ranks and three iterations that add up to LOAD."""
    rng = np.random.default_rng(2)
    folder.mkdir()
    meta = {"num_experts": EXPERTS, "num_experts_per_token": 2}
    (folder / "meta_info.json").write_text(json.dumps(changes.pop("meta", meta)))
    parts = rng.multinomial(LOAD.ravel(), np.full(6, 1 / 6)).T.reshape(RANKS, 3, LAYERS, EXPERTS)
    layers = changes.pop("layers", [3, 4, 60])
    for rank in range(RANKS):
        tensors = {f"{100 + i}_{layers[n]}": parts[rank, i, n] for i in range(3) for n in range(LAYERS)}
        for key, value in changes.items():
            if rank == 1 and value is None:
                del tensors[key.removeprefix("t")]
            elif rank == 1:
                tensors[key.removeprefix("t")] = value
        # The library writes the memory as it lies, whatever the strides.
        contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        save_file(contiguous, folder / f"rank{rank}.safetensors")
    return folder


def test_tensorrt_statistics_sum_over_ranks(tmp_path: Path) -> None:
    """Layers are the absolute ones of the keys; a folder, or a single file."""
    counts = counts_of(tensorrt(tmp_path / "s"))
    assert counts.load.tolist() == LOAD.tolist()
    assert counts.layer_ids.tolist() == [3, 4, 60]
    alone = counts_of(tmp_path / "s" / "rank0.safetensors")
    assert (alone.load < LOAD).any()
    assert "no meta_info.json" in " ".join(alone.provenance.notes)


def test_tensorrt_ranks_that_count_the_same(tmp_path: Path) -> None:
    """Without data-parallel attention all ranks count all tokens: the shares are right, the note says so."""
    folder = tensorrt(tmp_path / "s")
    (folder / "rank1.safetensors").write_bytes((folder / "rank0.safetensors").read_bytes())
    counts = counts_of(folder)
    assert counts.load.tolist() == (2 * counts_of(folder / "rank0.safetensors").load).tolist()
    assert "the same counts" in " ".join(counts.provenance.notes)


def test_tensorrt_last_iteration_may_be_cut_off(tmp_path: Path) -> None:
    """A rank that ended in an iteration loses that one, with a note."""
    counts = counts_of(tensorrt(tmp_path / "s", t102_60=None))
    assert (counts.load <= LOAD).all()
    assert "lacks layers" in " ".join(counts.provenance.notes)


ROW = np.ones(EXPERTS, np.int64)


def test_tensorrt_counts_of_one_id_beyond(tmp_path: Path) -> None:
    """`torch.bincount` makes room for a fused shared expert, or for rows without a token, where there are any."""
    longer = np.append(counts_of(tensorrt(tmp_path / "plain")).load[0] * 0 + 1, 40).astype(np.int64)
    counts = counts_of(tensorrt(tmp_path / "s", t100_3=longer))
    assert counts.load.shape == LOAD.shape
    assert "id 8 is a fused shared expert" in " ".join(counts.provenance.notes)
    (finding,) = [one for one in check(tmp_path / "s") if one.code == "ids_beyond_experts"]
    assert finding.severity == "note"
    (tmp_path / "s" / "meta_info.json").unlink()
    refused("load_shape", tmp_path / "s")
    assert counts_of(tmp_path / "s", num_experts=8).load.tolist() == counts.load.tolist()


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("load_not_finite", {"t100_3": -ROW}),
        ("load_not_finite", {"t100_3": ROW << 60}),
        ("load_shape", {"t100_3": ROW[:5]}),
        ("load_shape", {"t100_3": np.append(ROW, [0, 1])}),
        ("tensor_dtype", {"t100_3": ROW.astype(np.float32)}),
        ("tensor_name", {"tlayer3": ROW}),
        ("tensor_name", {"t0100_3": ROW}),
        ("tensor_shape", {"t100_3": ROW.reshape(2, 4)}),
        ("layer_missing", {"t101_4": None}),
        ("iteration_gap", {"t110_3": ROW, "t110_4": ROW, "t110_60": ROW}),
        ("num_experts_differ", {"meta": {"num_experts": 9, "num_experts_per_token": 2}}),
        ("header_type", {"meta": {"num_experts": -8, "num_experts_per_token": 2}}),
    ],
)
def test_tensorrt_statistics_that_are_refused(tmp_path: Path, code: str, changes: dict[str, Any]) -> None:
    """Negative counts, other shapes and types, and missing layers or iterations name file and tensor."""
    refused(code, tensorrt(tmp_path / "s", **changes))


def test_tensorrt_ranks_must_differ(tmp_path: Path) -> None:
    """The same rank twice would be counted twice."""
    folder = tensorrt(tmp_path / "s")
    (folder / "copy_of_rank1.safetensors").write_bytes((folder / "rank1.safetensors").read_bytes())
    refused("duplicate_rank", folder)


def test_tensorrt_hostile_headers(tmp_path: Path) -> None:
    """Lengths and offsets that don't fit the file are refused before anything is read."""
    for header in (
        b"{}",
        b'{"0_0":{"dtype":"I64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}',
        b"{" * 99,
    ):
        for length in (len(header), 1 << 40, (1 << 64) - 1):
            path = tmp_path / "rank0.safetensors"
            path.write_bytes(length.to_bytes(8, "little") + header + bytes(64))
            with pytest.raises(InputError):
                load(path, format="tensorrt_llm")


def test_tensorrt_header_of_too_many_tensors(tmp_path: Path) -> None:
    """A file that the format allows and that names more tensors than is read says so, and what to do."""
    length = (32 << 20) + 8
    path = tmp_path / "rank0.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + b" " * (length - 2))
    with pytest.raises(InputError, match="fewer iterations") as error:
        load(path)
    assert error.value.violations[0].code == "too_large"


def ascend(folder: Path, slots: Counts, heat: npt.NDArray[Any]) -> Path:
    """Write a folder with the expert map and the loads."""
    folder.mkdir()
    content = {
        "moe_layer_count": LAYERS,
        "layer_list": [
            {
                "layer_id": layer,
                "device_count": RANKS,
                "device_list": [
                    {"device_id": device, "device_expert": slots[layer].reshape(RANKS, SLOTS)[device].tolist()}
                    for device in reversed(range(RANKS))
                ],
            }
            for layer in reversed(range(LAYERS))
        ],
    }
    (folder / "expert_map.json").write_text(json.dumps(content))
    np.save(folder / "moe_load_600.npy", heat)
    return folder


def test_ascend_heat_folds_through_the_map(tmp_path: Path) -> None:
    """Devices and layers of the map come in any order; stages in front are summed, several arrays added."""
    rng = np.random.default_rng(3)
    slots = shuffled_slots(rng)
    heat = spread(LOAD, slots, rng).reshape(LAYERS, RANKS, SLOTS)
    folder = ascend(tmp_path / "one", slots, heat)
    assert counts_of(folder).load.tolist() == LOAD.tolist()
    np.save(folder / "moe_load_1200.npy", heat)
    assert counts_of(folder).load.tolist() == (2 * LOAD).tolist()
    staged = ascend(tmp_path / "staged", slots, np.stack([heat, heat, heat]))
    assert counts_of(staged).load.tolist() == (3 * LOAD).tolist()


def test_ascend_heat_of_mix_placement(tmp_path: Path) -> None:
    """The shared expert that every device holds is no routed expert, given their number; its loads are left out."""
    rng = np.random.default_rng(4)
    slots = shuffled_slots(rng)
    heat = spread(LOAD, slots, rng).reshape(LAYERS, RANKS, SLOTS)
    folder = ascend(tmp_path / "one", slots, np.insert(heat, SLOTS, 77, axis=2))
    content = json.loads((folder / "expert_map.json").read_text())
    for device in (device for layer in content["layer_list"] for device in layer["device_list"]):
        device["device_expert"].append(LOAD.shape[1])
    (folder / "expert_map.json").write_text(json.dumps(content))
    counts = counts_of(folder, num_experts=LOAD.shape[1])
    assert counts.load.tolist() == LOAD.tolist()
    assert "mix_placement" in " ".join(counts.provenance.notes)
    unstated = counts_of(folder)
    assert unstated.load.tolist() == LOAD.tolist()
    assert "id 8 and above, as nobody states" in " ".join(unstated.provenance.notes)
    assert "ids_beyond_experts" in check(folder).codes
    device["device_expert"][-1] = 0
    (folder / "expert_map.json").write_text(json.dumps(content))
    refused("num_experts_differ", folder, num_experts=LOAD.shape[1])


def test_ascend_heat_alone_needs_the_number_of_experts(tmp_path: Path) -> None:
    """Without a map, slots are experts only if the caller says that there are no copies."""
    np.save(tmp_path / "h.npy", LOAD.reshape(LAYERS, 2, 4))
    refused("map_missing", tmp_path / "h.npy", format="vllm_ascend")
    refused("map_missing", tmp_path / "h.npy", format="vllm_ascend", num_experts=6)
    counts = counts_of(tmp_path / "h.npy", format="vllm_ascend", num_experts=8)
    assert counts.load.tolist() == LOAD.tolist()
    assert "There is no expert map" in " ".join(counts.provenance.notes)


def test_ascend_tensors_of_torch(tmp_path: Path) -> None:
    """Logical loads need no map; physical ones are folded as arrays are; other contents are refused."""
    (tmp_path / "w.pt").write_bytes(torch_bytes(LOAD.astype(np.int64)))
    assert counts_of(tmp_path / "w.pt").load.tolist() == LOAD.tolist()
    rng = np.random.default_rng(7)
    slots = shuffled_slots(rng)
    heat = spread(LOAD, slots, rng).reshape(LAYERS, RANKS, SLOTS)
    folder = ascend(tmp_path / "s", slots, heat)
    (folder / "moe_load_600.npy").unlink()
    (folder / "moe_load.pt").write_bytes(torch_bytes(heat.astype(np.int32)))
    assert counts_of(folder).load.tolist() == LOAD.tolist()
    (tmp_path / "five.pt").write_bytes(torch_bytes({"a": LOAD}))
    refused("load_shape", tmp_path / "five.pt", format="vllm_ascend")


def test_ascend_running_sums_are_refused(tmp_path: Path) -> None:
    """Some versions record running sums over the slots; their difference is the load."""
    heat = LOAD.reshape(LAYERS, 2, 4)
    np.save(tmp_path / "h.npy", np.cumsum(heat, axis=2))
    assert "numpy.diff" in refused("cumulative_load", tmp_path / "h.npy", format="vllm_ascend", num_experts=8)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("map_shape", lambda content: content["layer_list"].pop()),
        ("map_shape", lambda content: content["layer_list"][0].update(layer_id=1)),
        ("map_shape", lambda content: content["layer_list"][0]["device_list"].pop()),
        ("map_shape", lambda content: content["layer_list"][0]["device_list"][0].update(device_expert=[0, 1])),
        ("map_shape", lambda content: content["layer_list"][0]["device_list"][0].update(device_expert=[True] * 6)),
        ("map_shape", lambda content: content.update(layer_list=7)),
        ("id_out_of_range", lambda content: content["layer_list"][0]["device_list"][0].update(device_expert=[-5] * 6)),
    ],
)
def test_ascend_maps_that_are_refused(tmp_path: Path, code: str, change: Callable[[Any], Any]) -> None:
    """Layers, devices or slots that are missing or twice."""
    slots = shuffled_slots(np.random.default_rng(4))
    folder = ascend(tmp_path / "s", slots, RNG.integers(1, 9, (LAYERS, RANKS, SLOTS)))
    content = json.loads((folder / "expert_map.json").read_text())
    change(content)
    (folder / "expert_map.json").write_text(json.dumps(content))
    refused(code, folder)


def test_llama_lines_are_counted(tmp_path: Path) -> None:
    """One line per activation, in any order; large ids, blanks and line ends of Windows are fine."""
    rows = [f"{layer + 1},{expert}" for layer, expert in np.ndindex(LOAD.shape) for _ in range(LOAD[layer, expert])]
    np.random.default_rng(5).shuffle(rows)
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    counts = counts_of(tmp_path / "a.csv")
    assert counts.load.tolist() == LOAD.tolist()
    assert counts.layer_ids.tolist() == [1, 2, 3]
    (tmp_path / "b.csv").write_bytes(b"Layer, Expert\r\n 200 ,3\r\n200,\t4000\r\n7,0\r\n")
    counts = counts_of(tmp_path / "b.csv", num_experts=5000)
    assert counts.layer_ids.tolist() == [7, 200]
    assert np.argwhere(counts.load).tolist() == [[0, 0], [1, 3], [1, 4000]]


def test_llama_chunks_join_without_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines across the borders of chunks count once; the last one without an end is left out with a note."""
    monkeypatch.setattr("traces.formats.llama_csv.CHUNK_BYTES", 10)
    rows = [f"{layer},{expert}" for layer in range(3) for expert in range(500) for _ in range(2)]
    (tmp_path / "a.csv").write_text("layer,expert\n" + "\n".join(rows) + "\n2,49")
    counts = counts_of(tmp_path / "a.csv")
    assert (counts.load == 2).all()
    assert counts.load.shape == (3, 500)
    assert "cut off" in " ".join(counts.provenance.notes)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("csv_line", "layer,expert\n1,2\n1;2\n"),
        ("csv_line", "layer,expert\n1,-2\n"),
        ("csv_line", "layer,expert\n1,2,3\n"),
        ("csv_line", "layer,expert\n1,2\n\n1,2\n"),
        ("csv_line", "layer,expert\n1,nan\n"),
        ("csv_line", "layer,expert\n1,12345678901\n"),
        ("csv_line", "layer,expert\n1," + "1" * 500 + "\n1,2\n"),
        ("id_out_of_range", "layer,expert\n1,40000\n"),
        ("id_out_of_range", "layer,expert\n5000,4\n"),
        ("zero_tokens", "layer,expert\n"),
        ("ambiguous_format", "1,2\n3,4\n"),
    ],
)
def test_llama_lines_that_are_refused(tmp_path: Path, code: str, text: str) -> None:
    """What is no pair of indices, or of no model, names the line."""
    (tmp_path / "a.csv").write_text(text)
    refused(code, tmp_path / "a.csv")


def test_llama_errors_name_the_line(tmp_path: Path) -> None:
    """Lines count from 1, the title included."""
    (tmp_path / "a.csv").write_text("layer,expert\n1,2\n1,2\nx\n")
    assert "a.csv#line 4" in refused("csv_line", tmp_path / "a.csv")


def test_two_experts_per_layer_are_loads_if_so_named(tmp_path: Path) -> None:
    """The ambiguous file is read in either way when named."""
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    assert counts_of(tmp_path / "a.csv", format="eplb").load.tolist() == [[1, 2], [3, 4]]
    assert counts_of(tmp_path / "a.csv", format="llama_csv").load.sum() == 2


def pairs_of_chain(seed: int = 6) -> tuple[Counts, Counts]:
    """Return loads and pairs of 500 tokens that use one expert per layer."""
    ids = np.random.default_rng(seed).integers(0, EXPERTS, (500, LAYERS))
    load_of = np.stack([np.bincount(ids[:, layer], minlength=EXPERTS) for layer in range(LAYERS)])
    pairs = np.zeros((LAYERS - 1, EXPERTS, EXPERTS), np.int64)
    for layer in range(LAYERS - 1):
        np.add.at(pairs[layer], (ids[:, layer], ids[:, layer + 1]), 1)
    return load_of, pairs


def test_moetuner_pairs_give_affinity(tmp_path: Path) -> None:
    """Pairs are kept as they are; shares and conditional probabilities give the same affinity up to rounding."""
    load_of, pairs = pairs_of_chain()
    np.savez(tmp_path / "pairs.npz", P=load_of, R=pairs)
    counts = counts_of(tmp_path / "pairs.npz")
    assert counts.load.tolist() == load_of.tolist()
    assert counts.affinity is not None
    assert counts.affinity.tolist() == pairs.tolist()
    given = pairs / np.maximum(pairs.sum(axis=2, keepdims=True), 1)
    np.savez(tmp_path / "given.npz", P=load_of / 500, R=given.astype(np.float32))
    np.savez(tmp_path / "shares.npz", P=load_of / 500, R=pairs / 500)
    for name in ("given", "shares"):
        affinity = counts_of(tmp_path / f"{name}.npz").affinity
        assert affinity is not None
        assert np.allclose(affinity / affinity.sum(), pairs / pairs.sum(), atol=1e-6)


def test_moetuner_statistics_can_be_planned_for_traffic(tmp_path: Path) -> None:
    """Affinity without tokens is enough for context-coherent plans."""
    from placement import Objective, Problem, Topology
    from solvers import Limits, solve

    load_of, pairs = pairs_of_chain()
    np.savez(tmp_path / "p.npz", P=load_of, R=pairs)
    profile = Profile.of(counts_of(tmp_path / "p.npz"))
    problem = Problem(profile=profile, topology=Topology.parse("1x4"), objective=Objective(), slots_per_gpu=2)
    solution = solve(problem, "annealing", limits=Limits(work=2000))
    assert solution.plan is not None
    assert solution.score is not None


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("routes_unclear", {"R": np.random.default_rng(0).random((2, 8, 8))}),
        ("load_not_finite", {"R": np.full((2, 8, 8), np.nan)}),
        ("load_not_finite", {"R": np.full((2, 8, 8), -1)}),
        ("load_not_finite", {"P": np.full((3, 8), -1.0)}),
        ("load_shape", {"R": np.ones((3, 8, 8))}),
        ("load_shape", {"P": np.ones(8)}),
        ("load_dtype", {"P": np.ones((3, 8), bool)}),
        ("load_range", {"R": np.zeros((2, 8, 8))}),
        ("load_range", {"R": np.full((2, 8, 8), 1e308)}),
    ],
)
def test_moetuner_statistics_that_are_refused(tmp_path: Path, code: str, changes: dict[str, Any]) -> None:
    """Routes that fit neither meaning, and broken numbers."""
    load_of, pairs = pairs_of_chain()
    arrays: dict[str, Any] = {"P": load_of, "R": pairs} | changes
    np.savez(tmp_path / "p.npz", **arrays)
    refused(code, tmp_path / "p.npz")
