"""Bad input: a clear error for each violation, exit code 1, no traceback, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from api.cli import app
from placement import Plan, Problem, Topology, save_plan
from placement.files import plan_to_dict
from solvers import make_plan
from traces import Profile, Trace, save
from traces.synthetic import Synthetic, generate

PARAMS = Synthetic(num_layers=3, num_experts=8, top_k=2, num_tokens=512, tokens_per_sequence=32)
IDS = np.tile(np.array([0, 1], np.uint8), (256, 3, 1))


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


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
    "a folder": (lambda folder: folder, "is_a_folder"),
    "truncated npz": (cut(".npz"), "damaged_file"),
    "truncated parquet": (cut(".parquet"), "damaged_file"),
    "an unknown header field": (
        text("t.jsonl", HEADER.replace('"top_k"', '"topk"') + '{"topk_ids":[[1]]}\n'),
        "unknown_field",
    ),
    "counts for an affinity objective": (text("load.csv", "1,2,3,4\n5,6,7,8\n"), "counts_only"),
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
        (("--slots-per-gpu", 0), "slots_range"),
        (("--solver", "anealing"), "unknown_solver"),
        (("--option", "speed=3"), "unknown_option"),
        (("--load-cap", 0.5), "load_cap_range"),
        (("--load-cap", "nan"), "load_cap_range"),
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
        (("--ownership", "measured"), "no_source_rank"),
        (("--execution", "dispatch", "--ownership", "measured"), "no_source_rank"),
        (("--copy-policy", "same-gpu"), "copy_policy"),
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
        "topology of other size": ({"provenance": {"topology": {"gpus_per_node": [2]}}}, "gpus_differ"),
        "unknown topology field": ({"provenance": {"topology": {"gpus": 4}}}, "unknown_field"),
    }


@pytest.mark.parametrize("name", bad_plans())
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_bad_plan_file_is_refused(command: str, name: str, trace: Path, tmp_path: Path) -> None:
    """Both commands that read plans check them."""
    changes, code = bad_plans()[name]
    (tmp_path / "plan.json").write_text(json.dumps(plan_to_dict(sound_plan()) | changes))
    assert_refused(run(command, tmp_path / "plan.json", trace), code)


def test_counts_can_not_be_replayed(trace: Path, tmp_path: Path) -> None:
    """A load matrix has no tokens."""
    save_plan(sound_plan(), tmp_path / "plan.json")
    (tmp_path / "load.csv").write_text("1,2,3,4,5,6,7,8\n" * 3)
    assert_refused(run("evaluate", tmp_path / "plan.json", tmp_path / "load.csv"), "counts_only")


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
    content = plan_to_dict(sound_plan())
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
