"""The engine first: one command from what an engine records to what it loads, and what is told where that can't be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from placement import Plan
from tests.builders.cli import command
from traces import save
from traces.synthetic import Synthetic, generate

from ..engine_files import ENGINE_FILES, Toy, write_bundle

CONFIG = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 6,
    "num_experts": 16,
    "num_experts_per_tok": 3,
    "mlp_only_layers": [0, 3],
    "decoder_sparse_step": 1,
}
QUICK = ("--work-limit", 3000)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the config.json of the toy's model."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a trace that tells no engine."""
    path = tmp_path / "trace.npz"
    save(generate(Synthetic(num_layers=3, num_experts=8, top_k=2, num_tokens=512, tokens_per_sequence=32)), path)
    return path


def refused(result: Result, code: str, *words: str) -> None:
    """Check that an error is told in two lines: what it is, and what to do."""
    assert result.exit_code in (1, 2), result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("error: ")
    assert f"[{code}]" in lines[0]
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("kind", ["sglang_stat", "sglang_per_token", "sglang_per_pass", "sglang_routed_experts"])
@pytest.mark.parametrize("named", [True, False])
def test_one_command_from_a_recording_to_what_sglang_loads(kind: str, named: bool, config: Path) -> None:
    """Trace, engine, topology, model: the file lies beside the plan, and is what `check` calls valid."""
    recorded = write_bundle(Path("recorded"), ENGINE_FILES[kind](Toy(slots=16)))
    engine = ("--engine", "sglang") if named or kind == "sglang_routed_experts" else ()
    result = command("solve", recorded, *engine, "--topology", "2x4", "--model", config, *QUICK)
    if not named and not engine and "--engine sglang" in result.stdout.splitlines()[0]:
        pytest.skip("traces do not bring their engine along here")
    assert result.exit_code == 0, result.stderr
    plan = Path(f"{recorded.stem}.plan.json")
    file = Path(f"{recorded.stem}.plan.sglang.json")
    assert result.stdout.strip().splitlines()[-2:] == [
        f"{file} written for SGLang 0.5.23 (sglang).",
        f"Load it with: --init-expert-location {file} --ep-num-redundant-experts 0",
    ]
    written = Plan.load(plan)
    assert written.provenance["objective"]["execution"] == "dispatch"
    counts_only = kind in ("sglang_stat", "sglang_per_pass")
    assert written.provenance["objective"]["dedup"] == ("none" if counts_only else "node")
    assert ("counts only" in result.stderr) == counts_only
    rows = json.loads(file.read_text())["physical_to_logical_map"]
    assert len(rows) == 6
    assert [rows[layer] for layer in (1, 2, 4, 5)] == written.physical_to_logical_map.tolist()
    checked = command("check", file, "--engine", "sglang", "--topology", "2x4", "--model", config)
    assert checked.exit_code == 0, checked.stderr


def test_redundant_experts_reach_the_file_and_every_slot_is_full(config: Path) -> None:
    """SGLang takes no empty slots; the launch flag has their number."""
    recorded = write_bundle(Path("recorded"), ENGINE_FILES["sglang_stat"](Toy(slots=16)))
    base = ("solve", recorded, "--engine", "sglang:static", "--topology", "2x4", "--model", config, *QUICK)
    told = json.loads(command(*base, "--redundant-experts", 8, "-o", "p.json", "--json").stdout)
    assert (told["engine"], told["engine_file"]) == ("sglang:static", "p.sglang.json")
    assert told["load"] == "--init-expert-location p.sglang.json --ep-num-redundant-experts 8"
    assert (Plan.load("p.json").physical_to_logical_map >= 0).all()


def test_without_the_model_the_plan_is_written_and_the_way_on_is_told(trace: Path) -> None:
    """One sentence: what is missing, and how to get the file later; that command then works."""
    result = command("solve", trace, "--engine", "sglang", "--topology", "1x4", *QUICK, "-o", "p.json")
    assert result.exit_code == 0, result.stderr
    assert Plan.load("p.json").num_gpus == 4
    assert not Path("p.sglang.json").exists()
    (note,) = [line for line in result.stderr.splitlines() if "get it later" in line]
    assert "needs the model's layers" in note
    later = note.partition("`")[2].partition("`")[0]
    assert later == "moe-placement export p.json --engine sglang -o p.sglang.json --model config.json"
    model = {"model_type": "mixtral", "num_hidden_layers": 3, "num_local_experts": 8, "num_experts_per_tok": 2}
    Path("config.json").write_text(json.dumps(model))
    done = command(*later.split()[1:])
    assert done.exit_code == 0, done.stderr


def test_a_saved_profile_takes_the_model_for_the_engines_file(trace: Path) -> None:
    """A profile knows its layers; a model that has other ones is refused."""
    model = {"model_type": "mixtral", "num_hidden_layers": 3, "num_local_experts": 8, "num_experts_per_tok": 2}
    Path("config.json").write_text(json.dumps(model))
    Path("other.json").write_text(json.dumps(model | {"num_local_experts": 16}))
    assert command("profile", trace, "-o", "profile.npz").exit_code == 0
    solve = ("solve", "profile.npz", "--engine", "sglang", "--topology", "1x4", *QUICK)
    result = command(*solve, "--model", "config.json")
    assert result.exit_code == 0, result.stderr
    assert Path("profile.plan.sglang.json").exists()
    refused(command(*solve, "--model", "other.json"), "model_differs", "--model")


def test_the_engines_file_never_overwrites_an_input(trace: Path) -> None:
    """Told before the search."""
    Path("p.sglang.json").write_bytes(trace.read_bytes())
    before = Path("p.sglang.json").read_bytes()
    result = command("solve", "p.sglang.json", "--engine", "sglang", "--topology", "1x4", "-o", "p.json", *QUICK)
    refused(result, "overwrites_input")
    assert Path("p.sglang.json").read_bytes() == before


def test_export_to_an_engine_that_travels_otherwise_is_refused(trace: Path) -> None:
    """Two lines: what the plan was made for, and what the engine does; `--force` writes it, with a warning."""
    for made, engine, other in (("exflow", "vllm", "home"), ("vllm", "exflow", "straight")):
        assert command("solve", trace, "--engine", made, "--topology", "1x4", *QUICK, "-o", "p.json").exit_code == 0
        out = ("export", "p.json", "--engine", engine, "-o", "out.jsonl" if engine == "vllm" else "out.csv")
        result = command(*out)
        assert f"solve with --engine {engine}".lower() in result.stderr.lower()
        assert result.exit_code == 1
        errors = result.stderr[result.stderr.index("error: ") :].strip().splitlines()
        assert len(errors) == 2
        assert "[engine_travels_otherwise]" in errors[0]
        assert other in errors[0].partition(";")[2]
        assert "--force" in errors[1]
        assert not Path(out[-1]).exists()
        forced = command(*out, "--force")
        assert forced.exit_code == 0, forced.stderr
        assert "warning: The plan was made for" in forced.stderr
        assert Path(out[-1]).exists()
        Path(out[-1]).unlink()


def test_a_plan_for_the_engine_is_exported_without_a_word(trace: Path) -> None:
    """And so is one that says nothing of how tokens travel, or a format of no engine."""
    assert command("solve", trace, "--engine", "vllm", "--topology", "1x4", *QUICK, "-o", "p.json").exit_code == 0
    for engine in ("vllm_pr41141", "vllm-ascend", "csv"):
        result = command("export", "p.json", "--engine", engine, "-o", f"{engine}.out")
        assert result.exit_code == 0, result.stderr
        assert "made for" not in result.stderr


def test_evaluate_replays_as_the_engine_does(trace: Path) -> None:
    """`--engine` settles how tokens travel; single choices win over it."""
    assert command("solve", trace, "--topology", "2x2", *QUICK, "-o", "p.json").exit_code == 0

    def choices(*options: str) -> list[Any]:
        told = json.loads(command("evaluate", "p.json", trace, *options, "--json").stdout)
        return [told[name] for name in ("execution", "dedup", "ownership", "replica_policy")]

    assert choices() == ["context_coherent", None, None, "fair"]
    assert choices("--engine", "sglang") == ["dispatch", "node", "token", "same_node"]
    assert choices("--engine", "vllm", "--dedup", "gpu") == ["dispatch", "gpu", "sequence", "fair"]
    assert choices("--engine", "exflow")[0] == "context_coherent"
    refused(command("evaluate", "p.json", trace, "--dedup", "gpu"), "option_unused", "--dedup", "--execution dispatch")


def test_compare_has_the_plan_of_nobody_and_a_winner(trace: Path) -> None:
    """The baseline's figures, and the plan of the lowest score on these tokens."""
    for name, seed in (("a.json", 0), ("b.json", 1)):
        solve = ("solve", trace, "--engine", "sglang", "--topology", "2x2", "--solver", "random", "--seed", seed)
        assert command(*solve, "-o", name).exit_code == 0
    told = json.loads(command("compare", "a.json", "b.json", trace, "--json").stdout)
    assert told["execution"] == "dispatch"
    assert told["best"] == min(told["scores"], key=told["scores"].get)
    assert told["scores"].keys() == {"a.json", "b.json", told["baseline"]["plan"]}
    assert told["baseline"]["tokens"] == told["plans"][0]["tokens"]


def test_what_is_no_trace_is_told_in_two_lines(trace: Path, config: Path) -> None:
    """A config, a missing trace, a missing topology file, an unknown engine, format or model."""
    solve = ("solve", trace, "--topology", "1x4")
    assert command(*solve, *QUICK, "-o", "p.json").exit_code == 0
    refused(command("compare", "p.json", "p.json"), "trace_missing", "p.json", "trace")
    refused(command("solve", trace, "--topology", "none.json"), "cannot_read", "none.json")
    refused(command(*solve, "--engine", "vlm"), "unknown_engine", "--engine", "vllm")
    refused(command(*solve, "--engine", "megatron:static"), "unknown_algorithm", "--engine")
    refused(command(*solve, "--format", "pickle"), "unknown_format")
    refused(command(*solve, "--model", "qwen3"), "unknown_model", "config.json")
    refused(command("export", "p.json", "--engine", "vlm", "-o", "x.json"), "unknown_format", "--engine", "vllm")
    refused(command("convert", "p.json", "x.json", "--to", "vlm"), "unknown_format", "--to")
    refused(command("solve", config, "--topology", "1x4"), "is_a_config", "config.json")


def test_an_answer_without_routed_experts_is_told(tmp_path: Path, config: Path) -> None:
    """The engine was not asked to return them."""
    answer = {"text": "x", "output_ids": [1, 2], "meta_info": {"prompt_tokens": 3, "completion_tokens": 2}}
    Path("responses.jsonl").write_text(json.dumps(answer) + "\n")
    result = command("solve", "responses.jsonl", "--engine", "sglang", "--topology", "1x4", "--model", config)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 2
    assert "responses.jsonl" in result.stderr


def test_a_config_of_another_model_is_told(config: Path) -> None:
    """The recording has other layers or experts than the model."""
    recorded = write_bundle(Path("recorded"), ENGINE_FILES["sglang_stat"](Toy(slots=16)))
    config.write_text(json.dumps(CONFIG | {"num_experts": 64}))
    result = command("solve", recorded, "--engine", "sglang", "--topology", "2x4", "--model", config)
    assert result.exit_code == 1
    errors = result.stderr[result.stderr.index("error: ") :].strip().splitlines()
    assert len(errors) == 2
    assert "64" in errors[0]


def test_options_without_effect_are_refused(trace: Path) -> None:
    """All of them at once."""
    np.savetxt("load.csv", np.ones((3, 8)), fmt="%d", delimiter=",")
    for options in (("--dedup", "gpu"), ("--ownership", "token"), ("--decode-batch", 64)):
        refused(
            command("solve", trace, "--topology", "1x4", "--execution", "context-coherent", *options), "without_effect"
        )
    both = command("solve", trace, "--topology", "1x4", "--engine", "exflow", "--dedup", "gpu", "--ownership", "token")
    assert both.stderr.count("error: ") == 2


def test_a_file_that_does_not_tell_how_tokens_travel_is_replayed_with_a_word(trace: Path) -> None:
    """An engine's file records no objective; nothing is said where the engine or the execution is named."""
    command("solve", trace, "--topology", "1x4", "--engine", "vllm", "--solver", "eplb", *QUICK, "-o", "plan.json")
    replay = ("evaluate", "plan.vllm.jsonl", trace, "--topology", "1x4")
    assert "plan.vllm.jsonl does not say how tokens travel" in " ".join(command(*replay).stderr.split())
    for named in (("--engine", "vllm"), ("--execution", "dispatch")):
        assert "how tokens travel" not in " ".join(command(*replay, *named).stderr.split())
    assert "how tokens travel" not in " ".join(command("evaluate", "plan.json", trace).stderr.split())
