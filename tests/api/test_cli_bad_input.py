"""Bad input: a clear error for each violation, exit code 1, no traceback, nothing half-written."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import Result

from placement import Plan, Problem, Topology
from solvers import make_plan
from tests.builders.cli import invoke as run
from traces import Profile, Trace, save
from traces.synthetic import Synthetic, generate

pytestmark = pytest.mark.usefixtures("elsewhere")

PARAMS = Synthetic(num_layers=3, num_experts=8, top_k=2, num_tokens=512, tokens_per_sequence=32)
IDS = np.tile(np.array([0, 1], np.uint8), (256, 3, 1))


def assert_refused(result: Result, code: str, *, exit_code: int = 1) -> None:
    """Check that the command ended with a message for people that names the rule."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert f"[{code}]" in result.stderr


def npz(**arrays: object) -> Callable[[Path], Path]:
    """Return a maker of an `.npz` trace with these arrays."""

    def make(folder: Path) -> Path:
        content: dict[str, Any] = {"topk_ids": IDS, "num_experts": 8, **arrays}
        np.savez(folder / "trace.npz", **content)
        return folder / "trace.npz"

    return make


def changed(row: int, value: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return ids with another choice of one token in the middle layer."""
    ids = IDS.copy()
    ids[row, 1] = value
    return ids


def text(name: str, content: str) -> Callable[[Path], Path]:
    """Return a maker of a text file."""

    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def cut(suffix: str) -> Callable[[Path], Path]:
    """Return a maker of a trace whose end is missing."""

    def make(folder: Path) -> Path:
        if suffix == ".parquet":
            pytest.importorskip("pyarrow")
        path = folder / f"trace{suffix}"
        save(generate(PARAMS), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        return path

    return make


HEADER = '{"format":"moe-placement-trace","version":1,"num_experts":8,"top_k":1}\n'
BAD_TRACES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two axes instead of three": (npz(topk_ids=IDS[:, :, 0]), "topk_ids_shape"),
    "floats for ids": (npz(topk_ids=IDS.astype(np.float32)), "topk_ids_dtype"),
    "an id out of range, fitted": (npz(topk_ids=changed(3, [0, 8])), "id_out_of_range"),
    "an id out of range, held out": (npz(topk_ids=changed(70, [0, 8])), "id_out_of_range"),
    "an expert twice, fitted": (npz(topk_ids=changed(3, [5, 5])), "duplicate_expert"),
    "an expert twice, held out": (npz(topk_ids=changed(70, [5, 5])), "duplicate_expert"),
    "NaN weights": (npz(gate_weights=np.full(IDS.shape, np.nan, np.float32)), "gate_weight_not_finite"),
    "a column of another length": (npz(seq_id=np.zeros(3, np.int32)), "column_shape"),
    "layers out of order": (npz(layer_ids=np.array([2, 1, 0])), "layer_ids_order"),
    "no tokens": (npz(topk_ids=IDS[:0]), "zero_tokens"),
    "top-k above the number of experts": (npz(num_experts=1), "top_k_range"),
    "an empty file": (text("trace.npz", ""), "empty_file"),
    "no known format": (text("trace.npz", "hello"), "unknown_format"),
    "a missing file": (lambda folder: folder / "none.npz", "file_missing"),
    "an empty folder": (lambda folder: folder, "empty_folder"),
    "truncated npz": (cut(".npz"), "damaged_file"),
    "truncated parquet": (cut(".parquet"), "damaged_file"),
    "an unknown header field": (
        text("t.jsonl", HEADER.replace('"top_k"', '"topk"') + '{"topk_ids":[[1]]}\n'),
        "unknown_field",
    ),
}


@pytest.mark.parametrize("name", BAD_TRACES)
def test_a_bad_trace_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    """The rule is named, and neither plan nor report appear."""
    make, code = BAD_TRACES[name]
    outputs = tmp_path / "out"
    outputs.mkdir()
    solve = ("solve", make(tmp_path), "--topology", "1x2", "--solver", "contiguous")
    result = run(*solve, "-o", outputs / "plan.json", "--report", outputs / "report.html")
    assert_refused(result, code)
    assert list(outputs.iterdir()) == []


def test_a_truncated_jsonl_trace_is_refused(tmp_path: Path) -> None:
    """A line that is cut off is no JSON, or tells that tokens are missing."""
    result = run(
        "solve", cut(".jsonl")(tmp_path), "--topology", "1x2", "--solver", "contiguous", "-o", tmp_path / "p.json"
    )
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert not (tmp_path / "p.json").exists()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sound trace file."""
    path = tmp_path_factory.mktemp("cli") / "trace.npz"
    save(generate(PARAMS), path)
    return path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--topology", "0x4"), "topology_size"),
        (("--topology", "big"), "topology_syntax"),
        (("--topology", "none.json"), "cannot_read"),
        (("--slots-per-gpu", 1), "more_experts_than_slots"),
        (("--slots-per-gpu", 0), "slots_per_gpu_range"),
        (("--solver", "anealing"), "unknown_solver"),
        (("--option", "speed=3"), "unknown_option"),
        (("--load-cap", 0.5), "load_cap_range"),
        (("--load-cap", "nan"), "load_cap_range"),
        (("--load-cap", 1.1, "--load-quantile", 1), "load_quantile_range"),
        (("--load-quantile", 0.9), "quantile_without_cap"),
        (("--hold-out", 1.5), "hold_out_range"),
        (("--time-limit", 0), "limit_range"),
        (("--time-limit", "inf"), "limit_range"),
        (("--work-limit", -1), "limit_range"),
        (("--gap", 2), "limit_range"),
        (("--seed", -1), "seed_range"),
        (("--pin", "99@0"), "expert_range"),
        (("--pin", "0@9"), "gpu_range"),
        (("--forbid", "0@0@99"), "layer_unknown"),
        (("--pin", "1@0", "--forbid", "1@0"), "pin_forbidden"),
        (("--group", "1,1"), "group_members"),
        (("--num-experts", 9), "num_experts_differ"),
        (("--layer-ids", "1,2"), "layer_ids_shape"),
        (("--format", "pickle"), "unknown_format"),
        (("--ownership", "measured"), "without_effect"),
        (("--dedup", "node"), "without_effect"),
        (("--execution", "dispatch", "--decode-batch", 64), "without_effect"),
        (("--engine", "sglan"), "unknown_engine"),
        (("--engine", "sglang:fastest"), "unknown_algorithm"),
        (("--engine", "exflow", "--dedup", "gpu"), "without_effect"),
        (("--redundant-experts", 3), "redundant_experts_uneven"),
        (("--engine", "megatron", "--redundant-experts", 4), "no_redundant_experts"),
        (("--plan-format", "csv"), "without_effect"),
        (("--seeds", 0), "seeds_range"),
        (("--model", "deepseek-v33"), "unknown_model"),
        (("--execution", "dispatch", "--ownership", "measured"), "no_source_rank"),
        (("--replica-policy", "same-gpu"), "replica_policy"),
        (("--start", "none.json"), "cannot_read"),
        (("--report", "/none/report.html"), "cannot_write"),
    ],
)
def test_a_bad_option_is_refused_and_nothing_is_written(
    options: tuple[object, ...], code: str, trace: Path, tmp_path: Path
) -> None:
    """Values that no problem can have are bad input."""
    base = ("solve", trace, "--topology", "1x4", "--solver", "contiguous", "-o", tmp_path / "plan.json")
    assert_refused(run(*base, *options), code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--execution", "telepathy"),
        ("--dedup", "rack"),
        ("--load-cap", "high"),
        ("--time-limit", "soon"),
        ("--pin", "3"),
        ("--pin", "1@2@3@4"),
        ("--group", "a,b"),
        ("--option", "sweeps"),
        ("--option", "a=1", "--option", "a=2"),
        ("--layer-ids", "1-"),
        ("--layer-ids", "5-1"),
        ("--layer-ids", "0-999999999999"),
        ("--workers", 0),
        ("--unheard-of", 1),
    ],
)
def test_wrong_usage_ends_with_code_2(options: tuple[object, ...], trace: Path, tmp_path: Path) -> None:
    """Texts that can't be read are wrong usage, told before any file is opened."""
    result = run("solve", trace, "--topology", "1x4", "-o", tmp_path / "plan.json", *options)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_violation_is_printed_on_a_line_of_its_own(trace: Path, tmp_path: Path) -> None:
    """Four mistakes, four lines, one run."""
    options = ("--topology", "0x4", "--time-limit", -1, "--start", tmp_path / "none.json", "-o", "/none/plan.json")
    result = run("solve", trace, *options)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 4


def test_bad_input_is_one_json_document_where_json_is_asked_for(trace: Path) -> None:
    """Code, pointer, detail and remedy of each violation."""
    result = run("solve", trace, "--topology", "1x4", "--solver", "contiguous", "--pin", "99@7", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["error"] == "bad_input"
    assert {violation["pointer"] for violation in told["violations"]} == {
        "/constraints/pins/0/expert",
        "/constraints/pins/0/gpu",
    }


def test_experts_need_not_divide_by_gpus(trace: Path, tmp_path: Path) -> None:
    """8 experts on 3 GPUs leave an empty slot: that is no error."""
    result = run("solve", trace, "--topology", "1x3", "--solver", "contiguous", "-o", tmp_path / "plan.json")
    assert result.exit_code == 0
    table = json.loads((tmp_path / "plan.json").read_text())["physical_to_logical_map"]
    assert [row.count(-1) for row in table] == [1, 1, 1]


def test_a_problem_without_any_plan_ends_with_code_3(trace: Path, tmp_path: Path) -> None:
    """GPU 1 can take 2 experts, but all but one are kept away from the other GPUs."""
    forbid = [item for expert in range(1, 8) for gpu in (0, 2, 3) for item in ("--forbid", f"{expert}@{gpu}")]
    base = ("solve", trace, "--topology", "1x4", "--solver", "contiguous", "-o", tmp_path / "plan.json", *forbid)
    result = run(*base)
    assert result.exit_code == 3
    assert "no plan: " in result.stderr
    assert not (tmp_path / "plan.json").exists()
    told = json.loads(run(*base, "--json").stdout)
    assert told["error"] == "no_plan"
    assert told["termination"]["reason"] in {"no_plan", "infeasible"}


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_an_input_is_never_overwritten(option: str, tmp_path: Path) -> None:
    """Mixing up the arguments does not cost the trace."""
    path = tmp_path / "trace.npz"
    save(generate(PARAMS), path)
    before = path.read_bytes()
    assert_refused(run("solve", path, "--topology", "1x4", option, path), "overwrites_input")
    assert path.read_bytes() == before


def test_plan_and_report_need_different_names(trace: Path, tmp_path: Path) -> None:
    """One would overwrite the other."""
    both = tmp_path / "out"
    assert_refused(run("solve", trace, "--topology", "1x4", "-o", both, "--report", both), "same_output")


def test_an_existing_plan_survives_a_failed_run(trace: Path, tmp_path: Path) -> None:
    """The file of the last run is replaced by a whole plan, or not at all."""
    path = tmp_path / "plan.json"
    path.write_text("precious")
    assert run("solve", trace, "--topology", "1x4", "--slots-per-gpu", 1, "-o", path).exit_code == 1
    assert path.read_text() == "precious"


def sound_plan() -> Plan:
    """Return a plan that fits the trace."""
    problem = Problem(Profile.of(generate(PARAMS)), Topology.parse("1x4"))
    return make_plan(problem, np.tile(np.arange(8), (3, 1)))


def bad_plans() -> dict[str, tuple[dict[str, object], str]]:
    """Return changes to a plan file and the rules that they break."""
    return {
        "unknown field": ({"colour": "red"}, "unknown_field"),
        "other version": ({"schema_version": 99}, "schema_version"),
        "ragged map": ({"physical_to_logical_map": [[0], [0, 1]]}, "not_integers"),
        "expert missing": ({"physical_to_logical_map": [[0] * 8] * 3}, "expert_missing"),
        "other layers": ({"layer_ids": [0, 1, 7]}, "layers_differ"),
        "nodes that do not add up": ({"num_gpus": 3}, "gpus_per_node"),
        "topology of other size": ({"provenance": {"topology": {"gpus_per_node": [2]}}}, "nodes_differ"),
        "unknown topology field": ({"provenance": {"topology": {"gpus": 4}}}, "unknown_field"),
    }


@pytest.mark.parametrize("name", bad_plans())
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_bad_plan_file_is_refused(command: str, name: str, trace: Path, tmp_path: Path) -> None:
    """Both commands that read plans check them."""
    changes, code = bad_plans()[name]
    (tmp_path / "plan.json").write_text(json.dumps(sound_plan().as_dict() | changes))
    assert_refused(run(command, tmp_path / "plan.json", trace), code)


def test_counts_are_not_replayed_but_have_expected_loads(trace: Path, tmp_path: Path) -> None:
    """A load matrix has no tokens: options that need some are refused."""
    sound_plan().save(tmp_path / "plan.json")
    (tmp_path / "load.csv").write_text("3,1,4,1,5,9,2,6\n" * 3)
    assert "Expected load of 3 layers" in run("evaluate", tmp_path / "plan.json", tmp_path / "load.csv").stdout
    assert_refused(run("evaluate", tmp_path / "plan.json", tmp_path / "load.csv", "--dedup", "gpu"), "without_effect")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--layers", 0, "--experts", 8, "--top-k", 2), "num_layers_range"),
        (("--layers", 2, "--experts", 8, "--top-k", 9), "top_k_range"),
        (("--layers", 2, "--experts", 8, "--top-k", 2, "--skew", "nan"), "not_a_number"),
        (("--like", "none.npz"), "file_missing"),
    ],
)
def test_a_synthetic_trace_that_can_not_be_is_refused(options: tuple[object, ...], code: str, tmp_path: Path) -> None:
    """And no file appears."""
    assert_refused(run("synthetic", *options, "-o", tmp_path / "s.npz"), code)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_trace_suffix_is_refused(tmp_path: Path) -> None:
    """The suffix chooses the format."""
    sizes = ("--layers", 2, "--experts", 8, "--top-k", 2, "--tokens", 10)
    assert_refused(run("synthetic", *sizes, "-o", tmp_path / "s.txt"), "unknown_format")


def test_profiles_of_different_models_are_not_merged(trace: Path, tmp_path: Path) -> None:
    """Layers and experts have to agree."""
    save(Trace.of(np.zeros((9, 2, 1), int), num_experts=4), tmp_path / "other.npz")
    assert_refused(run("profile", trace, tmp_path / "other.npz", "-o", tmp_path / "p.npz"), "profiles_differ")
    assert not (tmp_path / "p.npz").exists()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)),
    name=st.sampled_from(["t.npz", "t.jsonl", "t.parquet", "t.npy", "t.csv", "t.json"]),
)
def test_no_content_of_a_file_ends_in_a_traceback(content: bytes, name: str, tmp_path: Path) -> None:
    """Arbitrary bytes are refused, or are a trace."""
    (tmp_path / name).write_bytes(content)
    result = run("solve", tmp_path / name, "--topology", "1x2", "--solver", "contiguous", "-o", tmp_path / "plan.json")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code in (0, 1)
    assert (tmp_path / "plan.json").exists() == (result.exit_code == 0)
    (tmp_path / "plan.json").unlink(missing_ok=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_trace_ends_in_a_traceback(data: st.DataObject, trace: Path, tmp_path: Path) -> None:
    """A sound file with bytes changed or cut off is refused, or still a trace; nothing is written half."""
    content = bytearray(trace.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "t.npz").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    out = tmp_path / "plan.json"
    result = run("solve", tmp_path / "t.npz", "--topology", "1x2", "--solver", "contiguous", "-o", out)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code in (0, 1)
    assert out.exists() == (result.exit_code == 0)
    out.unlink(missing_ok=True)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_in_a_plan_file_ends_in_a_traceback(data: st.DataObject, trace: Path, tmp_path: Path) -> None:
    """Any field may hold anything."""
    content = sound_plan().as_dict()
    content["provenance"] = {"topology": {"gpus_per_node": [4]}}
    place = content if data.draw(st.booleans()) else content["provenance"]["topology"]
    names = (
        sorted(content) if place is content else ["gpus_per_node", "intra_node", "rank_cost_matrix", "slots", "name"]
    )
    place[data.draw(st.sampled_from(names))] = data.draw(JSON_VALUES)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    result = run("evaluate", tmp_path / "plan.json", trace)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1)


@pytest.mark.parametrize("option", ["-o", "--report"])
@pytest.mark.parametrize(
    ("name", "code"),
    [("pipe", "not_a_file"), ("/dev/null", "not_a_file"), ("loop", "cannot_write"), ("n" * 300, "cannot_write")],
)
def test_an_output_that_can_not_become_a_file_is_refused_at_once(
    option: str, name: str, code: str, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe stays a pipe, a link in a loop a link; nothing is searched."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr("solvers.Study.of", lambda *arguments, **options: pytest.fail("the work has begun"))
    assert_refused(run("solve", trace, "--topology", "1x4", option, tmp_path / name), code)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_outputs_go_through_links_and_under_long_names(trace: Path, tmp_path: Path) -> None:
    """What the check lets pass can be written after the search."""
    link, report = tmp_path / "link", tmp_path / ("n" * 250)
    link.symlink_to("plan.json")
    solve = ("solve", trace, "--topology", "1x4", "--solver", "contiguous")
    assert run(*solve, "-o", link, "--report", report).exit_code == 0
    assert link.is_symlink()
    assert json.loads((tmp_path / "plan.json").read_text())["num_gpus"] == 4
    assert report.exists()


def test_a_link_to_an_input_is_that_input(trace: Path, tmp_path: Path) -> None:
    """Writing through a link would overwrite the trace."""
    (tmp_path / "link").symlink_to(trace)
    assert_refused(run("solve", trace, "--topology", "1x4", "-o", tmp_path / "link"), "overwrites_input")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pipe", "not_a_file"),
        ("/dev/zero", "not_a_file"),
        ("loop", "cannot_read"),
        ("n" * 300, "cannot_read"),
    ],
)
def test_an_input_that_is_no_file_is_refused_without_waiting(name: str, code: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to is not opened."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert_refused(run("solve", tmp_path / name, "--topology", "1x4", "-o", tmp_path / "plan.json"), code)
    assert_refused(run("profile", tmp_path / name, "-o", tmp_path / "p.npz"), code)


def test_an_empty_name_is_called_empty(trace: Path) -> None:
    """Not only a folder called '.'."""
    for result in (run("solve", trace, "--topology", "1x4", "-o", ""), run("solve", "", "--topology", "1x4")):
        assert_refused(result, "is_a_folder")
        assert "empty" in result.stderr


def test_remedies_name_the_options(trace: Path) -> None:
    """Whoever is at the command line has no keyword arguments."""
    solve = ("solve", trace, "--topology", "1x4", "--solver", "contiguous")
    assert "--layer-ids" in run(*solve, "--layer-ids", "1,2,3").stderr
    assert "--num-experts" in run(*solve, "--num-experts", 9).stderr


@pytest.mark.parametrize("value", [1e308, 5e-324])
def test_loads_beyond_what_can_be_shared_are_refused(value: float, tmp_path: Path) -> None:
    """They neither overflow nor give a score of 0."""
    np.save(tmp_path / "w.npy", np.full((3, 8), value))
    assert_refused(run("solve", tmp_path / "w.npy", "--topology", "1x4", "--solver", "eplb"), "load_range")
    assert_refused(run("profile", tmp_path / "w.npy"), "load_range")


def test_distances_are_not_ignored_for_counts(tmp_path: Path) -> None:
    """Counts have no pairs."""
    np.save(tmp_path / "w.npy", np.full((3, 8), 2.5))
    assert_refused(run("profile", tmp_path / "w.npy", "--distance", 2), "counts_only")


def test_distances_are_not_ignored_for_saved_profiles(trace: Path, tmp_path: Path) -> None:
    """A profile has those that it was made with."""
    Profile.of(generate(PARAMS)).save(tmp_path / "without.npz")
    Profile.of(generate(PARAMS), distances=(2,)).save(tmp_path / "with.npz")
    assert_refused(run("profile", tmp_path / "without.npz", "--distance", 2), "profile_options")
    assert run("profile", tmp_path / "with.npz", trace, "--distance", 2).exit_code == 0


def test_a_trace_that_is_named_twice_is_noted(trace: Path) -> None:
    """On stderr, beside the result."""
    result = run("profile", trace, trace)
    assert result.exit_code == 0
    assert "note: trace.npz has the content of trace.npz" in result.stderr
    assert "counted again" not in run("profile", trace).stderr


def test_a_disk_that_is_full_is_no_traceback(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes with code 1, and no temporary file is left."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    solve = ("solve", trace, "--topology", "1x4", "--solver", "contiguous")
    assert_refused(run(*solve, "-o", tmp_path / "plan.json"), "cannot_write")
    assert list(tmp_path.iterdir()) == []


def plan_of(topology: str, slots_per_gpu: int, experts: int = 8) -> Plan:
    """Return a plan of the trace's layers, its experts in order."""
    params = Synthetic(num_layers=3, num_experts=experts, top_k=2, num_tokens=512, tokens_per_sequence=32)
    problem = Problem(Profile.of(generate(params)), Topology.parse(topology), slots_per_gpu)
    return make_plan(problem, np.tile(np.arange(problem.num_slots) % experts, (3, 1)))


@pytest.mark.parametrize(
    ("start", "pointers"),
    [
        (("2x2", 2), {"num_gpus", "slots_per_gpu"}),
        (("1x1", 8), {"num_gpus", "slots_per_gpu"}),
        (("1x2", 6), {"slots_per_gpu"}),
        (("1x2", 4, 6), {"num_experts"}),
    ],
)
def test_a_start_plan_of_other_sizes_is_refused(
    start: tuple[Any, ...], pointers: set[str], trace: Path, tmp_path: Path
) -> None:
    """Its slots would be read as those of other GPUs, as long as there are as many of them."""
    plan_of(*start).save(tmp_path / "start.json")
    result = run("solve", trace, "--topology", "1x2", "--start", tmp_path / "start.json", "-o", tmp_path / "p.json")
    assert_refused(result, "start_size")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert {line.partition(":")[2].partition(":")[0] for line in errors} == {f" --start ({name})" for name in pointers}


def test_a_start_plan_of_other_nodes_is_taken(trace: Path, tmp_path: Path) -> None:
    """The same GPUs and slots, joined in another way."""
    plan_of("2x2", 2).save(tmp_path / "start.json")
    solve = ("solve", trace, "--topology", "1x4", "--solver", "round_robin", "--work-limit", 1000)
    assert run(*solve, "--start", tmp_path / "start.json").exit_code == 0


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_plan_whose_recorded_topology_contradicts_it_is_refused(command: str, trace: Path, tmp_path: Path) -> None:
    """Named outright, either topology is taken."""
    plan = plan_of("1x4", 2).replacing(provenance={"topology": {"gpus_per_node": [2, 2]}})
    plan.save(tmp_path / "plan.json")
    assert_refused(run(command, tmp_path / "plan.json", trace), "nodes_differ")
    assert run(command, tmp_path / "plan.json", trace, "--topology", "2x2").exit_code == 0


@pytest.mark.parametrize("command", ["evaluate", "compare"])
@pytest.mark.parametrize("part", [(), ("--part", "all")])
def test_a_held_out_share_of_all_tokens_is_refused(
    command: str, part: tuple[str, ...], trace: Path, tmp_path: Path
) -> None:
    """It would not be used; 0 holds nothing out, which is what happens."""
    sound_plan().save(tmp_path / "plan.json")
    base = (command, tmp_path / "plan.json", trace, *part)
    result = run(*base, "--hold-out", 0.3)
    assert result.exit_code == 2
    assert "--hold-out" in result.stderr
    assert run(*base, "--hold-out", 0).exit_code == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", ["topology", "start", "plan"])
def test_a_pipe_is_not_waited_for(place: str, trace: Path, tmp_path: Path) -> None:
    """Every option that names a JSON file refuses what is none."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    arguments: dict[str, tuple[object, ...]] = {
        "topology": ("solve", trace, "--topology", pipe),
        "start": ("solve", trace, "--topology", "1x2", "--start", pipe),
        "plan": ("evaluate", pipe, trace),
    }
    assert_refused(run(*arguments[place]), "not_a_file")


def test_text_that_is_no_unicode_is_refused(trace: Path, tmp_path: Path) -> None:
    """In the name of a topology, and in a plan's warnings: it could not be printed."""
    (tmp_path / "t.json").write_text('{"gpus_per_node": [2], "name": "\\ud800"}')
    assert_refused(run("solve", trace, "--topology", tmp_path / "t.json"), "not_unicode")
    (tmp_path / "p.json").write_text(json.dumps(sound_plan().as_dict() | {"warnings": ["\udc00"]}))
    assert_refused(run("evaluate", tmp_path / "p.json", trace), "not_unicode")


@pytest.mark.parametrize("ids", ["1-99999999999999999999999", f"0-{'9' * 5000}", "99999999999999999999999-3"])
def test_layers_beyond_all_numbers_are_wrong_usage(ids: str, trace: Path) -> None:
    """A range that no memory could hold."""
    result = run("solve", trace, "--topology", "1x2", "--layer-ids", ids)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "--layer-ids" in result.stderr


def test_a_preset_of_thousands_of_digits_is_refused(trace: Path) -> None:
    """As any other text that names no topology."""
    assert_refused(run("solve", trace, "--topology", f"hgx_h100:{'1' * 5000}"), "topology_syntax")


@pytest.mark.parametrize("name", ["1000000x1000000", "9999x9999", "9999+9999", "hgx_h100:9999", "0x4", "hgx_h100:0"])
def test_a_topology_of_no_size_names_the_limit(name: str, trace: Path) -> None:
    """Before anything is made of that size."""
    result = run("solve", trace, "--topology", name)
    assert_refused(result, "topology_size")
    assert "between 1 and 4096 GPUs" in result.stderr
    assert name in result.stderr


def test_hosts_out_of_range_name_the_limit(trace: Path, tmp_path: Path) -> None:
    """A number that can't be, and one that makes too many GPUs of the host that is described."""
    (tmp_path / "topo.txt").write_text("\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n")
    for number, told in ((0, "hosts=0 is not 1 to 4096"), (10**9, "is not 1 to 4096"), (4096, "at most hosts=2048")):
        result = run("solve", trace, "--topology", f"{tmp_path / 'topo.txt'},hosts={number},network_gb_s=50")
        assert result.exit_code == 1
        assert told in result.stderr


@pytest.mark.parametrize("layers", [0, 100_001, 10**18])
def test_layers_of_no_model_name_the_limit(layers: int, trace: Path) -> None:
    """And the option."""
    result = run("solve", trace, "--topology", "1x2", "--model-layers", layers)
    assert_refused(result, "model_layers")
    assert "Give 1 to 100000 layers" in result.stderr
    assert "--model-layers" in result.stderr


def test_a_first_moe_layer_beyond_the_last_names_its_option(trace: Path) -> None:
    """Layers count from 0."""
    result = run("solve", trace, "--topology", "1x2", "--model-layers", 3, "--first-moe-layer", 3)
    assert_refused(result, "no_layers")
    assert "--first-moe-layer" in result.stderr


def test_an_option_that_is_nested_too_deeply_is_wrong_usage(trace: Path) -> None:
    """Its value is not printed."""
    solve = ("solve", trace, "--topology", "1x2", "--solver", "annealing")
    result = run(*solve, "--option", f"restarts={'[' * 100_000}")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "--option" in result.stderr
    assert len(result.stderr) < 1000


@pytest.mark.parametrize(
    ("solver", "option", "text"),
    [
        ("annealing", "hot=Infinity", "inf does not fit. Give a finite number."),
        ("annealing", "hot=1e400", "inf does not fit. Give a finite number."),
        ("annealing", "polish=NaN", "nan does not fit. Give a finite number."),
        ("annealing", f"hot=1{'0' * 400}", "does not fit. Give a finite number."),
        ("annealing", "hot=true", "True does not fit. Give a finite number."),
        ("annealing", "restarts=2.5", "2.5 does not fit. Give an integer or null."),
        ("eplb", "policy=none", "'none' does not fit. Give one of 'auto', 'hierarchical', 'global'."),
    ],
)
def test_an_option_of_a_wrong_type_is_told_in_words(solver: str, option: str, text: str, trace: Path) -> None:
    """What fits is named, and long values are cut."""
    result = run("solve", trace, "--topology", "1x2", "--solver", solver, "--option", option)
    assert_refused(result, "option_type")
    assert text in " ".join(result.stderr.replace("[option_type]", "").split())
    assert f"--option ({option.partition('=')[0]})" in result.stderr
    assert len(result.stderr) < 300


@pytest.mark.parametrize("groups", [0, -1])
def test_no_groups_are_refused_with_the_right_remedy(groups: int, trace: Path) -> None:
    """The number is at fault, not the solver."""
    solve = ("solve", trace, "--topology", "1x2", "--solver", "eplb", "--execution", "dispatch", "--dedup", "none")
    result = run(*solve, "--option", f"num_groups={groups}")
    assert_refused(result, "option_range")
    assert "Give at least 1." in result.stderr


def test_threads_are_limited_to_a_few_per_core(trace: Path) -> None:
    """More than that could not be started at all; a note says so, and the plan is the same."""
    most = 4 * len(os.sched_getaffinity(0))
    solve = ("solve", trace, "--topology", "1x2", "--solver", "annealing", "--work-limit", 10_000, "--json")
    many, few = run(*solve, "--workers", 10**6), run(*solve, "--workers", most)
    assert f"{most} are used" in many.stderr
    assert "are used" not in few.stderr
    assert json.loads(many.stdout)["score"] == json.loads(few.stdout)["score"]
