"""``--server``: the same commands, with the work on a service."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.client import Client
from placement import Plan
from tests.builders.cli import invoke as command


@pytest.fixture(scope="module")
def url(server_type: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a service and return its address."""
    started = server_type.start(tmp_path_factory.mktemp("remote") / "data")
    yield str(started.http.base_url)
    started.kill()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory, trace_bytes: bytes) -> str:
    """Return the small valid trace as a file."""
    path = tmp_path_factory.mktemp("remote") / "tiny.npz"
    path.write_bytes(trace_bytes)
    return str(path)


def run(*arguments: str) -> Any:
    """Run `solve`."""
    return command("solve", *arguments)


def document(*arguments: object) -> Any:
    """Run a command with ``--json`` and return its document."""
    result = command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_same_plan_here_and_there(url: str, trace: str, tmp_path: Path) -> None:
    """With a work limit the service finds the plan that the command finds alone."""
    options = [trace, "--topology", "2x2", "--load-cap", "1.2", "--work-limit", "200000", "--seed", "3"]
    options += ["--pin", "5@3", "--group", "1,2"]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    alone = run(*options, "-o", str(here))
    assert alone.exit_code == 0, alone.output
    answer = run(*options, "--server", url, "-o", str(there))
    assert answer.exit_code == 0, answer.output
    seconds = re.compile(r"after [\d.]+ s")
    assert seconds.sub("", answer.stdout).replace("there.json", "here.json") == seconds.sub("", alone.stdout)
    assert (Plan.load(here).physical_to_logical_map == Plan.load(there).physical_to_logical_map).all()


def test_json_and_warm_start(url: str, trace: str) -> None:
    """--json tells the service's answer; --start names a plan of the service, and the result is never worse."""
    options = [trace, "--topology", "1x4", "--work-limit", "50000", "--server", url, "--json"]
    first = json.loads(run(*options).stdout)
    assert first["status"] == "succeeded"
    again = json.loads(run(*options, "--start", first["id"]).stdout)
    assert again["score"] <= first["score"]


def test_counts_are_told_as_here(url: str, tmp_path: Path) -> None:
    """Expected loads of several dumps, by part; what needs tokens is refused the same way."""
    rng, plan = np.random.default_rng(2), tmp_path / "p.json"
    dumps = tmp_path / "dumps.tar"
    with tarfile.open(dumps, "w") as archive:
        for number in range(3):
            (tmp_path / f"d{number}.json").write_text(json.dumps(rng.integers(1, 99, (2, 8)).tolist()))
            archive.add(tmp_path / f"d{number}.json", f"d{number}.json")
    Plan.of(
        np.tile([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3], (2, 1)),
        layer_ids=[0, 1],
        num_experts=8,
        gpus_per_node=(2, 2),
        provenance={"objective": {"execution": "dispatch", "replica_policy": "same_node"}},
    ).save(plan)
    for options in ((), ("--part", "held-out"), ("--engine", "vllm"), ("--replica-policy", "same_gpu")):
        for words in (("evaluate", plan), ("compare", plan, plan)):
            here = document(*words, dumps, *options)
            assert here["kind"] == "counts"
            assert len(here["plans"][0]["dumps"]) == (2 if "--part" in options else 3)
            assert document(*words, dumps, *options, "--server", url) == here
    for at in ((), ("--server", url)):
        result = command("evaluate", plan, dumps, "--execution", "dispatch", "--pass-tokens", 64, *at)
        assert result.exit_code == 1
        assert result.stderr.count("without_effect") == 2


def test_document_has_what_the_local_one_has(url: str, trace: str) -> None:
    """And the same figures, with a work limit."""
    options = ("solve", trace, "--topology", "1x4", "--work-limit", 50_000)
    here, there = document(*options), document(*options, "--server", url)
    assert set(here) <= set(there)
    for name in ("score", "bound", "gap", "unit", "hints", "report", "plan"):
        assert here[name] == there[name], name
    assert here["summary"]["plans"]["plan"]["held_out"] == there["summary"]["plans"]["plan"]["held_out"]


def test_no_plan_has_its_exit_code(url: str, trace: str) -> None:
    """As without a service: no expert but one may be anywhere else than on one GPU."""
    forbidden = [f"--forbid={expert}@{gpu}" for expert in range(1, 32) for gpu in (0, 2, 3)]
    options = (trace, "--topology", "1x4", "--solver", "contiguous", *forbidden)
    here, there = run(*options), run(*options, "--server", url)
    assert here.exit_code == there.exit_code == 3
    assert here.stderr.splitlines()[-1] == there.stderr.splitlines()[-1]


def test_a_model_goes_with_its_trace(url: str, tmp_path: Path) -> None:
    """The layers of an unnamed trace are those of the model; a model that can't be told is refused, with a way out."""
    path = tmp_path / "plain.npz"
    rng = np.random.default_rng(0)
    np.savez(path, topk_ids=rng.random((64, 3, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8), num_experts=8)
    options = ("--topology", "1x2", "--solver", "contiguous", "--model-layers", "4", "--first-moe-layer", "1")
    plan = tmp_path / "plan.json"
    assert run(str(path), *options, "--server", url, "-o", str(plan)).exit_code == 0
    assert Plan.load(plan).layer_ids.tolist() == [1, 2, 3]
    refused = run(str(path), *options, "--mtp-layers", "1", "--server", url)
    assert refused.exit_code == 1
    assert "moe-placement profile" in refused.stderr


@pytest.mark.parametrize("execution", ["context-coherent", "dispatch"])
def test_evaluation_is_the_local_one(url: str, trace: str, tmp_path: Path, execution: str) -> None:
    """Of a plan file: every figure, the document and the table."""
    plan = tmp_path / "plan.json"
    solve = ("solve", trace, "--topology", "2x2", "--solver", "random", "--execution", execution, "-o", plan)
    assert command(*solve).exit_code == 0
    here, there = document("evaluate", plan, trace), document("evaluate", plan, trace, "--server", url)
    assert here == there
    shown = command("evaluate", plan, trace, "--server", url)
    assert shown.stdout == command("evaluate", plan, trace).stdout
    chosen = ("--execution", "dispatch", "--dedup", "node", "--topology", "1x4", "--decode-batch", 64)
    other = ("evaluate", plan, trace, *chosen)
    assert document(*other) == document(*other, "--server", url)
    assert document(*other)["activated_experts"] > 0


@pytest.mark.parametrize("named", [(), ("--engine", "vllm")])
def test_plans_that_record_nothing_are_replayed_alike(url: str, tmp_path: Path, named: tuple[str, ...]) -> None:
    """Whether the engine is named or not, and where a trace has no sequences for it: figures and notes."""
    tokens = np.random.default_rng(0).integers(0, 8, (200, 2, 1))
    trace, plan = tmp_path / "bare.npz", tmp_path / "plan.json"
    np.savez(trace, topk_ids=tokens, num_experts=np.array(8))
    Plan.of(np.tile(np.arange(8), (2, 1)), layer_ids=[0, 1], num_experts=8, gpus_per_node=(2, 2)).save(plan)
    options = ("evaluate", plan, trace, "--topology", "2x2", *named)
    here, there = document(*options), document(*options, "--server", url)
    assert here == there
    assert any("how tokens travel" in note for note in there["notes"]) != bool(named)


@pytest.mark.parametrize("part", [("fit",), ("held-out",), ("held-out", "--hold-out", 0.25)])
def test_parts_are_the_local_ones(url: str, trace: str, tmp_path: Path, part: tuple[object, ...]) -> None:
    """The service splits a trace as the command does."""
    plan = tmp_path / "plan.json"
    assert command("solve", trace, "--topology", "2x2", "--solver", "random", "-o", plan).exit_code == 0
    here = document("evaluate", plan, trace, "--part", *part)
    assert 0 < here["tokens"] < 2000
    assert document("evaluate", plan, trace, "--part", *part, "--server", url) == here


def test_comparison_is_the_local_one(url: str, trace: str, tmp_path: Path) -> None:
    """Of plan files of different objectives and of a plan and a trace by id: every figure, the notes, and the table."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    there = document("solve", trace, "--topology", "2x2", "--solver", "random", "--server", url, "-o", one)
    other = ("solve", trace, "--topology", "1x4", "--solver", "eplb", "--execution", "dispatch", "-o", two)
    assert command(*other).exit_code == 0
    here = document("compare", one, two, trace)
    assert here["notes"]
    assert document("compare", one, two, trace, "--server", url) == here
    assert command("compare", one, two, trace, "--server", url).stdout == command("compare", one, two, trace).stdout
    by_id = document("compare", there["id"], two, there["trace"], "--server", url)
    assert [plan.pop("plan") for plan in by_id["plans"]] == [there["id"], str(two)]
    assert by_id["plans"] == [{k: v for k, v in plan.items() if k != "plan"} for plan in here["plans"]]


def test_plans_and_traces_by_id(url: str, trace: str, tmp_path: Path) -> None:
    """What the service has is named by its id: to evaluate, and to write for an engine."""
    home = ("--topology", "1x4", "--solver", "eplb", "--execution", "dispatch", "-o", tmp_path / "p.json")
    told = document("solve", trace, *home, "--server", url)
    by_id = document("evaluate", told["id"], told["trace"], "--server", url)
    by_file = document("evaluate", tmp_path / "p.json", trace)
    differing = {"plan", "trace"}
    assert {k: v for k, v in by_id.items() if k not in differing} == {
        k: v for k, v in by_file.items() if k not in differing
    }
    engine = ("--engine", "sglang", "--model-layers", 7, "--first-moe-layer", 1)
    there = document("export", told["id"], *engine, "-o", tmp_path / "there.json", "--server", url)
    here = document("export", tmp_path / "p.json", *engine, "-o", tmp_path / "here.json")
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
    assert here.keys() == there.keys()
    missing = command("export", f"plan_{'0' * 32}", *engine, "-o", tmp_path / "x.json", "--server", url)
    assert missing.exit_code == 1
    assert not (tmp_path / "x.json").exists()


def test_topologies_by_id(url: str, trace: str, tmp_path: Path) -> None:
    """A machine that the service keeps, as shorthand or as a file's content, is named by its id."""
    from api.client import Client
    from api.resources.topologies.bodies import TopologyBody

    kept = ["2x2", {"schema_version": 1, "gpus_per_node": [3, 1], "inter_node": {"bandwidth_gb_s": 25.0}}]
    with Client(url) as service:
        ids = [service.keep_topology(TopologyBody.model_validate({"topology": content})).id for content in kept]
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(kept[1]))
    for named, meant in zip(ids, ("2x2", file), strict=True):
        plan = tmp_path / f"{named}.json"
        short = ("solve", trace, "--solver", "random", "--server", url)
        there = document(*short, "--topology", named, "-o", plan)
        assert there["score"] == document(*short, "--topology", meant)["score"]
        asked = ("evaluate", plan, trace, "--execution", "dispatch")
        assert document(*asked, "--topology", named, "--server", url) == document(*asked, "--topology", meant)
    assert ids[0] in command("front", trace, "--topology", ids[0]).stderr
    missing = command("compare", plan, trace, "--topology", f"topo_{'0' * 32}", "--server", url)
    assert missing.exit_code == 1
    assert f"There is no topology 'topo_{'0' * 32}'" in missing.stderr


def test_profile_is_counted_here_and_kept_there(url: str, trace: str, tmp_path: Path) -> None:
    """The output is that without a service and the id, which stands for the trace from then on."""
    here = document("profile", trace)
    there = document("profile", trace, "--server", url)
    assert there == here | {"trace": there["trace"]}
    path = tmp_path / "profile.npz"
    assert f"Profile uploaded as {there['trace']}" in command("profile", trace, "-o", path, "--server", url).stdout
    planned = document("solve", there["trace"], "--topology", "1x4", "--solver", "random", "--server", url)
    assert planned["trace"] == there["trace"]
    assert planned["score"] == document("solve", path, "--topology", "1x4", "--solver", "random")["score"]
    again = command("solve", there["trace"], "--topology", "1x4", "--num-experts", 32, "--server", url)
    assert again.exit_code == 1
    assert "--num-experts" in again.stderr


def test_front_is_the_local_one(url: str, trace: str, tmp_path: Path) -> None:
    """With a work limit: the document, the plans of all points, the picked one and the chart."""
    short = ("--work-limit", 30_000, "--points", 4, "--solver", "assignment")
    options = ("front", trace, "--topology", "2x2", *short, "--expert-bytes", 10)

    def files(name: str) -> tuple[object, ...]:
        folder = tmp_path / name
        folder.mkdir()
        return ("--out-dir", folder / "plans", "-o", folder / "plan.json", "--plot", folder / "front.svg")

    here, there = document(*options, *files("here")), document(*options, *files("there"), "--server", url)
    differing = {"elapsed_s", "plan", "out_dir", "plot"}
    assert there.keys() - here.keys() == {"id", "trace"}
    for one, other in zip(here["points"], there["points"], strict=True):
        assert one == other
    for name in here.keys() - differing:
        assert here[name] == there[name], name
    assert len(here["points"]) > 1
    for name in ("plan.json", *(f"plans/point-{number:02d}.json" for number in range(len(here["points"])))):
        one, other = (Plan.load(tmp_path / side / name) for side in ("here", "there"))
        assert (one.physical_to_logical_map == other.physical_to_logical_map).all(), name
    assert (tmp_path / "here" / "front.svg").read_bytes() == (tmp_path / "there" / "front.svg").read_bytes()


def test_front_keeps_the_constraints_there_too(url: str, trace: str) -> None:
    """A budget of replicas, pins and a layer's cap give the same points; a budget without a size, the same refusal."""
    short = ("--work-limit", 30_000, "--points", 3, "--solver", "annealing", "--execution", "dispatch")
    options = ("front", trace, "--topology", "2x2", *short, "--slots-per-gpu", 9, "--extra-bytes", 35)
    more = ("--expert-bytes", 10, "--pin", "5@3", "--layer-load-cap", "1.8@3", "--against", "replicas")
    here, there = document(*options, *more), document(*options, *more, "--server", url)
    assert here["points"] == there["points"]
    assert here["points"][-1]["extra_bytes"] <= 30
    refused = [command(*options, *server) for server in ((), ("--server", url))]
    for answer in refused:
        assert answer.exit_code == 1
        assert "--extra-bytes: A budget of replicas in bytes needs the size of an expert" in answer.stderr


def test_front_from_a_plan_of_the_service(url: str, trace: str) -> None:
    """Against bytes moved, the plan that runs is named by its id."""
    plan = document("solve", trace, "--topology", "2x2", "--solver", "eplb", "--server", url)["id"]
    options = ("front", trace, "--topology", "2x2", "--work-limit", 20_000, "--against", "bytes-moved")
    shown = command(*options, "--start", plan, "--server", url)
    assert shown.exit_code == 0, shown.output
    assert "moved" in shown.stdout
    assert "none of them beaten" in shown.stdout


def test_front_that_can_not_be_picked_from_has_its_exit_code(url: str, trace: str) -> None:
    """No point keeps the cap: as without a service."""
    short = ("--work-limit", 100, "--points", 3, "--solver", "assignment")
    options = ("front", trace, "--topology", "2x2", *short, "--pick", "cap=1.000001")
    here, there = command(*options), command(*options, "--server", url)
    assert here.exit_code == there.exit_code == 3
    assert here.stderr == there.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("solve", "--topology", "1x4", "--workers", "2"), "--workers"),
        (("solve", "--topology", "1x4", "--executor", "processes"), "--executor"),
        (("solve", "--topology", "1x4", "--report", "r.html"), "--report"),
        (("solve", "--topology", "1x4", "--start", "plan.json"), "--start"),
        (("solve", "--topology", "1x4", "--start", "plan_1"), "--start"),
        (("front", "--topology", "1x4", "--workers", "2"), "--workers"),
        (("front", "--topology", "1x4", "--executor", "processes"), "--executor"),
        (("front", "--topology", "1x4", "--plan-format", "own"), "--plan-format"),
        (("front", "--topology", "1x4", "--start", "plan.json"), "--start"),
        (("evaluate", "plan.json", "--workers", "2"), "--workers"),
        (("compare", "plan.json", "--workers", "2"), "--workers"),
        (("compare", "plan.json", f"plan_{'0' * 32}", "--plan-format", "own"), "--plan-format"),
        (("export", "--engine", "sglang", "-o", "out.json"), "PLAN"),
    ],
)
def test_what_a_service_does_not_take_is_refused_by_name(trace: str, arguments: tuple[str, ...], named: str) -> None:
    """Before anything is sent, with what to do about it."""
    refused = command(*arguments, trace, "--server", "http://127.0.0.1:9")
    assert refused.exit_code == 2
    assert named in refused.stderr
    assert "--server" in refused.stderr
    assert any(word in refused.stderr for word in ("Leave it out", "leave --server out", "name a plan"))


def test_fields_that_no_service_takes_are_bad_input(trace: str, url: str) -> None:
    """Told before they are sent, each with its place."""
    refused = run(trace, "--topology", "1x4", "--slots-per-gpu", "0", "--seed=-1", "--server", url)
    assert refused.exit_code == 1
    assert "--slots-per-gpu: " in refused.stderr
    assert "--seed: " in refused.stderr


def test_refusals(url: str, trace: str) -> None:
    """What the service refuses, and what does not go with it, is told like bad input here."""
    refused = run(trace, "--topology", "1x4", "--solver", "nobody", "--server", url)
    assert refused.exit_code == 1
    assert "nobody" in refused.output
    for address in ("http://[::1", "http://a b:x", "ftp://h", "nowhere"):
        assert run(trace, "--topology", "1x4", "--server", address).exit_code == 1, address


def test_seeds_are_searched_there_too(url: str, trace: str, tmp_path: Path) -> None:
    """The best of two seeds is the same plan, and the engine's file lies beside it."""
    asked = ("solve", trace, "--topology", "1x4", "--engine", "vllm", "--solver", "random", "--work-limit", 3)
    plans = []
    for name, server in (("here", ()), ("there", ("--server", url))):
        told = document(*asked, "--seeds", 2, "-o", tmp_path / f"{name}.json", *server)
        assert Path(told["engine_file"]).is_file()
        plans.append(json.loads((tmp_path / f"{name}.json").read_text())["physical_to_logical_map"])
    assert plans[0] == plans[1]


def test_a_recording_is_checked_here_and_there(url: str, tmp_path: Path) -> None:
    """The same findings, the same exit code; a trace that the service has is named by its id."""
    rng = np.random.default_rng(0)
    ids = np.insert(rng.random((400, 2, 8)).argsort(axis=2)[..., :2], 2, 8, axis=2)
    np.savez(tmp_path / "fused.npz", topk_ids=ids, num_experts=9)
    here = document("check", tmp_path / "fused.npz")
    there = document("check", tmp_path / "fused.npz", "--server", url)
    assert [one["code"] for one in here["findings"]] == [one["code"] for one in there["findings"]] != []
    (item,) = [one for one in Client(url).traces() if one.name == "fused.npz"]
    assert document("check", item.id, "--server", url)["findings"] == there["findings"]
    refused = command("check", tmp_path / "fused.npz", "--engine", "sglang", "--server", url)
    assert refused.exit_code == 1
    assert "--server" in refused.stderr
