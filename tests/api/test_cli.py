"""The commands: what they print, what they write, and what they promise in JSON."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import solvers
from api.cli.hints import overtime_note
from placement import Plan, Termination, Topology, evaluate, load_topology
from tests.builders.cli import command, document
from tests.builders.machines import full, smi, written
from traces import Profile, Trace, load, save
from traces.synthetic import Synthetic, generate

pytestmark = pytest.mark.usefixtures("elsewhere")

PARAMS = Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=2048, tokens_per_sequence=32)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace file with planted affinity."""
    path = tmp_path_factory.mktemp("cli") / "trace.npz"
    save(generate(PARAMS), path)
    return path


@pytest.fixture(scope="module")
def plan(trace: Path) -> Path:
    """Return a plan file for the trace."""
    path = trace.with_name("plan.json")
    solve = ("solve", trace, "--topology", "2x2", "--solver", "annealing", "--work-limit", 20_000, "-o", path)
    assert command(*solve).exit_code == 0
    return path


def test_every_command_is_listed_and_has_help() -> None:
    """`--help` names the commands and their exit codes."""
    text = command("--help").stdout
    names = ["profile", "solve", "evaluate", "compare", "solvers", "topologies", "synthetic", "demo", "serve"]
    names += ["backup", "restore"]
    assert all(name in text for name in names)
    assert "3 no plan" in text
    for name in names:
        assert "--json" in command(name, "--help").stdout


def test_solve_writes_the_plan_and_shows_before_and_after(trace: Path, tmp_path: Path) -> None:
    """Rows for both plans and both parts, the tokens of each, and what the plan means under dispatch."""
    result = command("solve", trace, "--topology", "2x2", "--solver", "random", "-o", tmp_path / "plan.json")
    assert result.exit_code == 0
    assert Plan.load(tmp_path / "plan.json").num_gpus == 4
    assert "Before: contiguous; after: the plan. From 1,024 fitted and 1,024 held-out tokens." in result.stdout
    rows = [line.rsplit(maxsplit=6) for line in result.stdout.splitlines() if line.startswith("busiest GPU's load")]
    assert [len(row) for row in rows] == [7]  # before, after, change, on fitted tokens and on held-out ones
    assert "han contiguous on held-out tokens" in result.stdout


def test_solve_json_is_one_document_that_agrees_with_the_plan_file(trace: Path, tmp_path: Path) -> None:
    """Score, bound, gap and termination are those of the written plan; messages stay off stdout."""
    path = tmp_path / "plan.json"
    told = document("solve", trace, "--topology", "1x4", "--solver", "random", "--seed", 5, "-o", path)
    written = Plan.load(path)
    assert {"plan", "score", "bound", "gap", "termination", "summary", "elapsed_s", "warnings"} <= set(told)
    assert told["plan"] == str(path)
    assert (told["score"], told["bound"], told["gap"]) == (written.score, written.bound, written.gap)
    assert Termination(**told["termination"]) == written.termination
    assert written.provenance["seed"] == 5
    assert list(told["summary"]["plans"]) == ["contiguous", "plan"]
    assert told["summary"]["tokens"] == {"fit": 1024, "held_out": 1024}


def test_solve_without_output_names_the_plan_by_the_trace(trace: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """It goes to the working directory, again and again; the trace is left alone, and the last line says where."""
    monkeypatch.chdir(tmp_path)
    before = trace.read_bytes()
    base = ("solve", trace, "--topology", "1x4", "--solver", "contiguous")
    assert document(*base)["plan"] == "trace.plan.json"
    assert "Plan written to trace.plan.json" in command(*base).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["trace.plan.json"]
    assert Plan.load(tmp_path / "trace.plan.json").num_gpus == 4
    assert trace.read_bytes() == before


def test_solve_says_first_how_tokens_are_assumed_to_travel(trace: Path) -> None:
    """Where nobody said it: ExFlow's way, and how to change it; silent where it was said."""
    base = ("solve", trace, "--topology", "1x4", "--solver", "contiguous")
    first = " ".join(command(*base).stdout.partition("\n\n")[0].split())
    assert "straight from one layer's experts to the next" in first
    assert "--engine" in first
    assert document(*base)["assumed"] == first
    for said in (("--engine", "sglang"), ("--execution", "context-coherent"), ("--engine", "exflow")):
        assert document(*base, *said)["assumed"] is None
        assert "No engine was named" not in command(*base, *said).stdout


def test_execution_is_read_with_hyphen_or_underscore(trace: Path) -> None:
    """Both spellings name the same execution."""
    for spelling in ("context-coherent", "context_coherent"):
        told = document("solve", trace, "--topology", "1x4", "--solver", "contiguous", "--execution", spelling)
        assert told["summary"]["objective"]["execution"] == "context_coherent"


def test_all_options_of_solve_reach_the_plan(trace: Path, tmp_path: Path) -> None:
    """What was asked for is recorded in the plan's provenance, and kept by it."""
    path = tmp_path / "plan.json"
    options: tuple[object, ...] = ("--solver", "annealing", "--work-limit", 5000, "--seed", 7, "--load-cap", 1.5)
    options += ("--layer-load-cap", "1.7@2", "--stall", 60)
    options += ("--extra-bytes", 7999, "--expert-bytes", 1000)
    options += ("--load-quantile", 0.8, "--load-groups", "sequences")
    options += ("--execution", "dispatch", "--dedup", "node", "--ownership", "sequence", "--replica-policy", "same-gpu")
    options += ("--pin", "3@1@2", "--forbid", "4@0", "--group", "5,6", "--slots-per-gpu", 5, "--gap", 0.01)
    assert command("solve", trace, "--topology", "2x2", "-o", path, *options).exit_code == 0
    written = Plan.load(path)
    recorded = written.provenance
    assert recorded["objective"]["dedup"] == "node"
    assert recorded["objective"]["ownership"] == "sequence"
    assert recorded["objective"]["replica_policy"] == "same_gpu"
    assert recorded["constraints"]["load_cap"] == 1.5
    assert recorded["constraints"]["layer_load_caps"] == [{"layer_id": 2, "load_cap": 1.7}]
    assert recorded["constraints"]["load_quantile"] == 0.8
    assert recorded["constraints"]["load_groups"] == "sequences"
    assert (recorded["constraints"]["extra_bytes"], recorded["expert_bytes"]) == (7999, 1000)
    assert (written.physical_to_logical_map >= 0).sum() <= written.num_layers * written.num_experts + 7
    assert recorded["limits"] == {"time_s": None, "work": 5000, "gap": 0.01, "stall_s": 60}
    assert written.slots_per_gpu == 5
    assert written.replicas_on_gpu[2, 3, 1] == 1
    assert not written.replicas_on_gpu[:, 4, 0].any()
    nodes = written.replicas_on_gpu[:, [5, 6]].reshape(4, 2, 2, 2).sum(axis=3) > 0
    assert (nodes.any(axis=1).sum(axis=1) == 1).all()


def test_the_time_limit_is_ten_seconds_unless_there_is_a_work_limit(trace: Path, tmp_path: Path) -> None:
    """A work limit alone makes the plan reproducible, so no clock is added to it."""
    path, base = tmp_path / "plan.json", ("solve", trace, "--topology", "1x4", "--solver", "contiguous")
    command(*base, "-o", path)
    assert Plan.load(path).provenance["limits"]["time_s"] == 10.0
    command(*base, "-o", path, "--work-limit", 10)
    assert Plan.load(path).provenance["limits"]["time_s"] is None
    command(*base, "-o", path, "--work-limit", 10, "--time-limit", 3)
    assert Plan.load(path).provenance["limits"]["time_s"] == 3.0


def test_a_search_starts_from_the_plan_that_is_given(trace: Path, plan: Path, tmp_path: Path) -> None:
    """A start is never made worse, even by a method without search."""
    told = document("solve", trace, "--topology", "2x2", "--solver", "contiguous", "--start", plan)
    assert told["score"] == pytest.approx(Plan.load(plan).score)


def test_a_plan_that_unbalances_gets_a_hint_that_names_the_flag(tmp_path: Path) -> None:
    """Contiguous is balanced here, any gain in traffic is not: --load-cap is the way out."""
    # Experts are chosen in pairs. Only plans that keep pairs together have no traffic, and none of these is balanced.
    ids = np.array([[0, 4]] * 9 + [[1, 5]] * 3 + [[2, 3]] * 2 + [[6, 7]] * 2)
    np.savez(tmp_path / "t.npz", topk_ids=np.tile(ids, (16, 1))[:, None].repeat(3, axis=1), num_experts=8)
    base = ("solve", tmp_path / "t.npz", "--topology", "1x2", "--solver", "annealing", "--work-limit", 50_000)
    free = command(*base)
    assert "--load-cap 1.05" in free.stderr
    assert document(*base)["hints"]
    capped = document(*base, "--load-cap", 1.05)
    assert capped["hints"] == []


def test_evaluate_prints_the_evaluation_at_top_level(trace: Path, plan: Path) -> None:
    """The JSON keys are the fixed names, with the values of `placement.evaluate`."""
    told = document("evaluate", plan, trace)
    tokens = load(trace)
    assert isinstance(tokens, Trace)
    expected = evaluate(Plan.load(plan), tokens, Topology.parse("2x2")).as_dict()
    assert {name: told[name] for name in expected} == json.loads(json.dumps(expected))
    dispatch = evaluate(Plan.load(plan), tokens, Topology.parse("2x2"), execution="dispatch")
    assert told["dispatch"]["remote_gpus"] == dispatch.remote_gpus


def test_evaluate_takes_the_parts_that_solve_makes(trace: Path, plan: Path) -> None:
    """Fit and held-out figures are the ones that `solve` shows, and both parts make the whole."""
    told = document("solve", trace, "--topology", "2x2", "--solver", "contiguous", "--start", plan)
    parts = {part: document("evaluate", plan, trace, "--part", part) for part in ("fit", "held-out", "all")}
    for part, name in (("fit", "fit"), ("held-out", "held_out")):
        shown = told["summary"]["plans"]["plan"][name]
        assert parts[part]["cross_gpu_fraction"] == shown["cross_gpu_fraction"]
        assert parts[part]["tokens"] == shown["tokens"]
    assert parts["fit"]["tokens"] + parts["held-out"]["tokens"] == parts["all"]["tokens"]


def test_evaluate_uses_the_topology_of_the_plan(trace: Path, plan: Path, tmp_path: Path) -> None:
    """As asked; else as recorded in the plan, else from its nodes."""
    assert document("evaluate", plan, trace)["topology"] == "2x2"
    assert document("evaluate", plan, trace, "--topology", "1x4")["cross_node_fraction"] == 0
    (Plan.load(plan).replacing(provenance={})).save(tmp_path / "bare.json")
    bare = document("evaluate", tmp_path / "bare.json", trace)
    assert bare["topology"] == "2x2"
    assert bare["cross_node_fraction"] > 0


CHOICES = ("execution", "dedup", "ownership", "replica_policy")


@pytest.fixture(scope="module")
def dispatch_plan(trace: Path) -> Path:
    """Return a plan file that was made for choices of which none is a default."""
    path = trace.with_name("dispatch.json")
    options = ("--execution", "dispatch", "--dedup", "node", "--ownership", "sequence", "--replica-policy", "same-gpu")
    solve = ("solve", trace, "--topology", "2x2", "--slots-per-gpu", 6, "--solver", "eplb", *options, "-o", path)
    assert command(*solve).exit_code == 0
    return path


def test_evaluate_uses_the_objective_of_the_plan(trace: Path, dispatch_plan: Path, tmp_path: Path) -> None:
    """As recorded in the plan, which decides the headline figures; by default where nothing is recorded."""
    told = document("evaluate", dispatch_plan, trace)
    assert [told[name] for name in CHOICES] == ["dispatch", "node", "sequence", "same_gpu"]
    tokens = load(trace)
    assert isinstance(tokens, Trace)
    settings: dict[str, Any] = {name: told[name] for name in CHOICES}
    expected = evaluate(Plan.load(dispatch_plan), tokens, Topology.parse("2x2"), **settings)
    assert told["remote_gpus"] == expected.remote_gpus is not None
    assert told["traffic"] == expected.traffic
    assert told["dispatch"]["remote_gpus"] == expected.remote_gpus
    assert "other nodes per" in command("evaluate", dispatch_plan, trace).stdout
    (Plan.load(dispatch_plan).replacing(provenance={})).save(tmp_path / "bare.json")
    bare = document("evaluate", tmp_path / "bare.json", trace)
    assert [bare[name] for name in CHOICES] == ["context_coherent", None, None, "fair"]
    assert [bare["dispatch"][name] for name in CHOICES[1:]] == ["gpu", "token", "same_node"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--dedup", "none"), ["dispatch", "none", "sequence", "same_gpu"]),
        (("--ownership", "token"), ["dispatch", "node", "token", "same_gpu"]),
        (("--replica-policy", "fair"), ["dispatch", "node", "sequence", "fair"]),
        (("--execution", "dispatch"), ["dispatch", "node", "sequence", "same_gpu"]),
        (("--execution", "context-coherent"), ["context_coherent", None, None, "fair"]),
        (
            ("--execution", "context-coherent", "--replica-policy", "same-node"),
            ["context_coherent", None, None, "same_node"],
        ),
    ],
)
def test_options_of_evaluate_win_over_the_objective_of_the_plan(
    options: tuple[str, ...], expected: list[str | None], trace: Path, dispatch_plan: Path
) -> None:
    """What is not asked stays as recorded, but a replica policy does not outlive its execution."""
    told = document("evaluate", dispatch_plan, trace, *options)
    assert [told[name] for name in CHOICES] == expected


def test_evaluate_counts_activated_experts_as_asked_or_as_recorded(
    trace: Path, dispatch_plan: Path, tmp_path: Path
) -> None:
    """Over batches of --decode-batch, else of those that the plan was made for; under dispatch only."""
    tokens, topology = load(trace), Topology.parse("2x2")
    assert isinstance(tokens, Trace)
    settings: dict[str, Any] = dict(zip(CHOICES, ("dispatch", "node", "sequence", "same_gpu"), strict=True))
    expected = evaluate(Plan.load(dispatch_plan), tokens, topology, **settings, decode_batch=16).activated_experts
    assert document("evaluate", dispatch_plan, trace)["activated_experts"] is None
    assert document("evaluate", dispatch_plan, trace, "--decode-batch", 16)["activated_experts"] == expected
    recorded = Plan.load(dispatch_plan)
    objective = {**recorded.provenance["objective"], "activated_weight": 0.5, "decode_batch": 16}
    made_for = tmp_path / "made.json"
    (recorded.replacing(provenance={**recorded.provenance, "objective": objective})).save(made_for)
    assert document("evaluate", made_for, trace)["activated_experts"] == expected
    both = document("compare", made_for, dispatch_plan, trace)
    assert [plan["activated_experts"] for plan in both["plans"]] == [expected, expected]
    assert not both["notes"]
    assert "activated" in command("evaluate", made_for, trace).stdout
    assert document("evaluate", made_for, trace, "--execution", "context-coherent")["activated_experts"] is None
    refused = command("evaluate", made_for, trace, "--execution", "context-coherent", "--decode-batch", 16)
    assert refused.exit_code == 1
    assert "--decode-batch" in refused.stderr
    assert "--execution dispatch" in refused.stderr


def test_compare_uses_the_objective_of_the_first_plan(trace: Path, plan: Path, dispatch_plan: Path) -> None:
    """All rows are replayed in the same way; where the plans differ in it, stderr says which way and for whom."""
    for first, second in ((plan, dispatch_plan), (dispatch_plan, plan)):
        result = command("compare", first, second, trace, "--json")
        told = json.loads(result.stdout)
        recorded = Plan.load(first).provenance["objective"]
        settings = {name: recorded[name] for name in CHOICES}
        assert {name: told[name] for name in CHOICES} == settings
        used = CHOICES if settings["execution"] == "dispatch" else ("execution", "replica_policy")
        options = [text for name in used for text in (f"--{name.replace('_', '-')}", settings[name])]
        for item, file in zip(told["plans"], (first, second), strict=True):
            assert item["traffic"] == document("evaluate", file, trace, *options)["traffic"]
        (note,) = [line for line in result.stderr.splitlines() if "objectives differ" in line]
        assert note.startswith("note: ")
        assert f"as {first} would be: execution {settings['execution'].replace('_', '-')}" in note
        assert f"Alone, {second} would be" in note
        assert note.removeprefix("note: ") in told["notes"]


def test_compare_is_silent_where_all_plans_are_replayed_as_they_were_made_for(
    trace: Path, plan: Path, dispatch_plan: Path
) -> None:
    """One objective, or options that settle it."""
    settled = ("--execution", "dispatch", "--dedup", "gpu", "--ownership", "token", "--replica-policy", "fair")
    for arguments in ((plan, plan), (dispatch_plan, dispatch_plan), (*settled, plan, dispatch_plan)):
        result = command("compare", *arguments, trace)
        assert result.exit_code == 0
        assert "differ" not in result.stderr


def test_evaluate_shows_the_figures_of_the_way_that_tokens_travel(trace: Path, plan: Path) -> None:
    """Pairs that change GPU, or messages away from home; the document has both."""
    straight = command("evaluate", plan, trace).stdout
    home = command("evaluate", plan, trace, "--execution", "dispatch", "--dedup", "none").stdout
    assert "pairs that" in straight
    assert "pairs that" not in home
    assert {"context_coherent", "dispatch"} <= document("evaluate", plan, trace).keys()


def test_compare_lists_every_plan(trace: Path, plan: Path, tmp_path: Path) -> None:
    """One entry per plan, in order, on the trace that is named last."""
    other = tmp_path / "other.json"
    command("solve", trace, "--topology", "1x8", "--solver", "contiguous", "-o", other)
    told = document("compare", plan, other, trace)
    assert [item["plan"] for item in told["plans"]] == [str(plan), str(other)]
    assert [item["topology"] for item in told["plans"]] == ["2x2", "1x8"]
    alone = document("evaluate", other, trace)
    assert told["plans"][1]["cross_gpu_fraction"] == alone["cross_gpu_fraction"]
    assert other.name in command("compare", plan, other, trace).stdout


def test_profile_writes_what_solve_reads(trace: Path, tmp_path: Path) -> None:
    """A profile holds all that planning needs."""
    path = tmp_path / "profile.npz"
    told = document("profile", trace, "-o", path)
    assert told["tokens"] == PARAMS.num_tokens
    assert told["profile"] == str(path)
    assert told["affinity"]["overall"]["strength_bits"] > 0
    from_profile = document("solve", path, "--topology", "1x4", "--solver", "contiguous")
    from_trace = document("solve", trace, "--topology", "1x4", "--solver", "contiguous", "--hold-out", 0)
    assert from_profile["score"] == from_trace["score"]


def test_profiles_of_several_traces_are_merged(trace: Path, tmp_path: Path) -> None:
    """Traces and profiles mix."""
    other = tmp_path / "other.jsonl"
    save(generate(Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=100, seed=1)), other)
    command("profile", trace, "-o", tmp_path / "first.npz")
    command("profile", tmp_path / "first.npz", other, "-o", tmp_path / "both.npz")
    assert Profile.load_file(tmp_path / "both.npz").tokens == PARAMS.num_tokens + 100


def test_profile_shows_load_and_affinity_layer_by_layer(trace: Path) -> None:
    """One line per layer, and whether there are enough tokens."""
    text = command("profile", trace).stdout
    assert [line.split()[0] for line in text.splitlines() if line[:1].isdigit()][1:] == ["0", "1", "2", "3"]
    assert "Tokens to trust the affinity" in text


def test_solvers_lists_every_solver_with_its_options() -> None:
    """The catalogue is the registry."""
    listed = {item["name"]: item for item in document("solvers")["solvers"]}
    assert tuple(listed) == solvers.names()
    assert all(item["summary"] for item in listed.values())
    assert listed["contiguous"]["options"].keys() == {"layout"}
    assert "eplb" in command("solvers").stdout


def test_every_listed_topology_can_be_used() -> None:
    """Presets parse under the names that are shown."""
    told = document("topologies")
    assert {"hgx_h100", "gb200_nvl72"} <= {preset["name"] for preset in told["presets"]}
    for preset in told["presets"]:
        assert Topology.parse(f"{preset['name']}:2").num_gpus == 2 * preset["gpus_per_node"]
    assert "gb200_nvl72" in command("topologies").stdout


def test_topologies_show_tells_what_was_understood(tmp_path: Path) -> None:
    """Nodes, the links of each pair, what is assumed and what looks wrong; the same as JSON."""
    path = written(tmp_path, smi(full(4, "SYS"), nics=0))
    spec = f"{path},hosts=2,network_gb_s=50"
    result = command("topologies", "show", spec)
    assert "8 on 2 node(s) of 4" in result.stdout
    assert "12.5" in result.stdout
    assert "note: No NVLink was seen" in result.stderr
    assert "warning: A hop between nodes costs less than one inside" in result.stderr
    told = document("topologies", "show", spec)
    assert (told["num_nodes"], told["num_gpus"]) == (2, 8)
    assert told["topology"]["notes"] == list(load_topology(spec).notes)
    assert told["warnings"] == list(load_topology(spec).warnings)
    assert "as on an HGX H100" in command("topologies", "show", "2x4").stderr
    assert command("topologies", "show", "hgx_h100:2").stderr == ""
    assert command("topologies", "--json", "show", "1x4").exit_code == 2
    assert command("topologies", "show", "4by8").exit_code == 1


def test_synthetic_writes_a_trace_of_the_asked_shape(tmp_path: Path) -> None:
    """The same parameters give the same trace."""
    path = tmp_path / "s.npz"
    sizes = ("--layers", 3, "--experts", 8, "--top-k", 2, "--tokens", 500, "--seed", 4, "--groups", 2)
    told = document("synthetic", *sizes, "-o", path)
    written = load(path)
    assert isinstance(written, Trace)
    assert (written.num_layers, written.num_experts, written.top_k, written.num_tokens) == (3, 8, 2, 500)
    assert told["parameters"]["groups"] == 2
    command("synthetic", *sizes, "-o", tmp_path / "again.npz")
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_synthetic_needs_sizes_or_a_trace_to_resemble(tmp_path: Path) -> None:
    """Missing sizes are wrong usage."""
    result = command("synthetic", "--layers", 3, "-o", tmp_path / "s.npz")
    assert result.exit_code == 2
    assert "--experts --top-k" in result.stderr


def test_demo_plans_the_sample_trace(tmp_path: Path) -> None:
    """It writes a plan and a report, and says what to do next."""
    result = command("demo", "-o", tmp_path / "out", "--time-limit", 1)
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.json", "report.html"]
    written = Plan.load(tmp_path / "out" / "plan.json")
    assert written.provenance["constraints"]["load_cap"] == 1.05
    assert "What to do next" in result.stdout
    assert str(tmp_path / "out" / "report.html") in result.stdout


def test_solve_writes_the_report_that_is_asked_for(trace: Path, tmp_path: Path) -> None:
    """One HTML file, named in the JSON."""
    told = document("solve", trace, "--topology", "1x4", "--solver", "contiguous", "--report", tmp_path / "report.html")
    assert told["report"] == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_serve_hands_its_address_to_the_server(monkeypatch: Any, tmp_path: Path) -> None:
    """Nothing is started here: the server is another's to test."""
    import sys
    from types import ModuleType

    called: list[object] = []

    def serve(host: object, port: object, data_dir: object, on_listening: Any) -> None:
        called.extend([host, port, data_dir])
        on_listening({"port": 9001})

    fake = ModuleType("api.service.server")
    fake.serve = serve  # type: ignore[attr-defined]  # a fake
    monkeypatch.setitem(sys.modules, "api.service.server", fake)
    told = document("serve", "--host", "::1", "--port", 9000, "--data-dir", tmp_path)
    assert called == ["::1", 9000, tmp_path]
    assert told == {"port": 9001}  # where it listens, not what was asked for
    called.clear()
    document("serve")
    assert called == [None, None, None]  # left to the settings


def test_a_plan_file_that_was_not_made_here_can_be_evaluated(trace: Path, tmp_path: Path) -> None:
    """A hand-written plan with empty slots needs no provenance."""
    table = np.full((4, 20), -1)
    table[:, :16] = np.arange(16)
    bare = Plan(
        physical_to_logical_map=table.astype(np.int32),
        layer_ids=np.arange(4),
        num_experts=16,
        num_gpus=4,
        slots_per_gpu=5,
        gpus_per_node=(4,),
    )
    bare.save(tmp_path / "bare.json")
    assert document("evaluate", tmp_path / "bare.json", trace)["tokens"] == PARAMS.num_tokens


@pytest.mark.parametrize(("taken", "limit", "told"), [(27.0, 1.0, True), (2.9, 1.0, False), (27.0, None, False)])
def test_a_search_far_over_its_limit_says_why(taken: float, limit: float | None, told: bool) -> None:
    """Twice the limit and a second are no matter."""
    found = SimpleNamespace(elapsed_s=taken)
    note = overtime_note(SimpleNamespace(num_experts=4096, num_gpus=4096), found, limit)  # type: ignore[arg-type]
    assert (note is not None and "4096 experts on 4096 GPUs" in note) == told
