"""``export``, ``check``, ``convert`` and ``formats``, and engines' files in the other commands."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from placement import Plan
from tests.builders.cli import command, document
from traces import Profile, Trace, load, save
from traces.synthetic import Synthetic, generate

pytestmark = pytest.mark.usefixtures("elsewhere")

CONFIG = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 5,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
}
CASES = {
    "sglang": (),
    "vllm_pr41141": (),
    "vllm-pr49572": (),
    "hygon": ("--model-class", "A", "--model-name", "m"),
    "vllm-ascend": (),
    "trtllm": (),
    "eplb": (),
    "deepspeed": ("--layer", "2"),
    "csv": (),
    "npz": (),
    "plan": (),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a config, a trace of its four MoE layers, and a plan with replicas."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    parameters = Synthetic(num_layers=4, num_experts=8, top_k=2, num_tokens=128, tokens_per_sequence=32)
    made = generate(parameters)
    batch = next(iter(made.batches()))
    np.savez(tmp_path / "trace.npz", topk_ids=batch.topk_ids, num_experts=np.array(8), layer_ids=np.arange(1, 5))
    row = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    plan = Plan(
        physical_to_logical_map=np.array([row, np.roll(row, 3).tolist(), row, row]),
        layer_ids=np.arange(1, 5),
        num_experts=8,
        num_gpus=4,
        slots_per_gpu=3,
        gpus_per_node=(2, 2),
    )
    plan.save(tmp_path / "plan.json")
    return tmp_path


@pytest.mark.parametrize("engine", CASES)
def test_export_check_and_convert_back(folder: Path, engine: str) -> None:
    """A plan goes out, is found valid, and comes back as the same placement; the way to load it is told."""
    config = ("--model", folder / "config.json", "--without-mtp")
    written = document(
        "export", folder / "plan.json", "--engine", engine, "-o", folder / "out.json", *config, *CASES[engine]
    )
    assert written["redundant_experts"] == 4
    assert written["load"]
    checked = document("check", folder / "out.json", "--topology", "2x2", *config)
    assert (checked["format"], checked["valid"]) == (written["format"], True)
    document("convert", folder / "out.json", folder / "again.json", "--to", "plan", "--topology", "2x2", *config)
    again, plan = Plan.load(folder / "again.json"), Plan.load(folder / "plan.json")
    assert again.num_gpus == 4
    if engine == "deepspeed":
        assert again.physical_to_logical_map[0].tolist() == plan.physical_to_logical_map[1].tolist()
    else:
        assert again.physical_to_logical_map.tolist() == plan.physical_to_logical_map.tolist()
        assert again.layer_ids.tolist() == [1, 2, 3, 4]


def test_export_tells_how_to_load(folder: Path) -> None:
    """The line for people names the engine's option with the number of redundant experts."""
    model = ("--model-layers", 5, "--first-moe-layer", 1)
    result = command("export", folder / "plan.json", "--engine", "sglang", "-o", folder / "out.json", *model)
    assert result.exit_code == 0, result.stderr
    assert f"--init-expert-location {folder / 'out.json'} --ep-num-redundant-experts 4" in result.stdout


def test_export_minds_the_name(folder: Path) -> None:
    """SGLang takes a name without .json for the JSON itself."""
    arguments = ("export", folder / "plan.json", "--engine", "sglang", "-o", folder / "out", "--model-layers", 5)
    result = command(*arguments, "--first-moe-layer", 1)
    assert result.exit_code == 1
    assert "out.json" in result.stderr


def test_export_refuses_and_writes_nothing(folder: Path) -> None:
    """Without the MTP layer's placement, TensorRT-LLM would fail: exit code 1, the remedy, and no file."""
    arguments = ("export", folder / "plan.json", "--engine", "trtllm", "-o", folder / "out.yaml")
    result = command(*arguments, "--model", folder / "config.json")
    assert result.exit_code == 1
    assert "layer_missing" in result.stderr
    assert "--fill-missing" in result.stderr
    assert not (folder / "out.yaml").exists()
    filled = command(*arguments, "--model", folder / "config.json", "--fill-missing")
    assert filled.exit_code == 0
    assert "  5: [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]" in (folder / "out.yaml").read_text()


def test_check_tells_everything(folder: Path) -> None:
    """All violations, on stderr and as JSON, with exit code 1."""
    rows = [[0, 1, 2, 3, 4, 5, 6, 6]] * 2 + [[0, 0, 2, 3, 4, 5, 6, 7]]
    (folder / "bad.json").write_text(json.dumps({"physical_to_logical_map": rows}))
    result = command("check", folder / "bad.json", "--engine", "sglang", "--topology", "1x4", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    codes = [(item["code"], item["pointer"].rpartition("/")[2]) for item in told["violations"]]
    assert not told["valid"]
    assert ("replicas_on_one_gpu", "2") in codes
    assert ("expert_missing", "0") in codes or ("expert_missing", "2") in codes
    assert "[replicas_on_one_gpu]" in result.stderr


def test_check_names_what_it_could_not_check(folder: Path) -> None:
    """Without topology and model, notes say what was not looked at."""
    (folder / "list.json").write_text("[[0, 1, 2, 3]]")
    result = command("check", folder / "list.json")
    assert result.exit_code == 0
    assert "number of GPUs" in result.stderr
    assert "taken as 0..0" in result.stderr


def test_engine_files_are_evaluated_compared_and_started_from(folder: Path) -> None:
    """Evaluate and compare give the same figures for a plan and for its files; solve starts from one."""
    model = ("--model", folder / "config.json")
    for engine in ("sglang", "trtllm"):
        output = folder / f"{engine}.json"
        arguments = ("export", folder / "plan.json", "--engine", engine, "-o", output, "--without-mtp")
        assert command(*arguments, *model).exit_code == 0
    own = document("evaluate", folder / "plan.json", folder / "trace.npz")
    given = document("evaluate", folder / "sglang.json", folder / "trace.npz", "--topology", "2x2", *model)
    assert given["cross_gpu_fraction"] == own["cross_gpu_fraction"]
    files = (folder / "plan.json", folder / "sglang.json", folder / "trtllm.json")
    compared = document("compare", *files, folder / "trace.npz", "--topology", "2x2", *model)
    assert len({item["cross_gpu_fraction"] for item in compared["plans"]}) == 1
    start = ("--start", folder / "sglang.json", "--plan-format", "sglang", "--slots-per-gpu", 3)
    solve = ("solve", folder / "trace.npz", "--topology", "2x2", "--solver", "annealing", "--work-limit", 1000)
    result = command(*solve, *start, *model, "-o", folder / "new.json")
    assert result.exit_code == 0, result.stderr
    assert Plan.load(folder / "new.json").layer_ids.tolist() == [1, 2, 3, 4]


def test_topology_from_the_machine(folder: Path) -> None:
    """The output of `nvidia-smi topo -m`, twice, is the plan's machine; a misspelt option is refused."""
    (folder / "topo.txt").write_text("\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV12\t0-7\nGPU1\tNV12\t X \t0-7\n")
    arguments = ("evaluate", folder / "plan.json", folder / "trace.npz", "--topology")
    assert document(*arguments, f"{folder / 'topo.txt'},hosts=2")["topology"] == "2 x topo.txt"
    result = command(*arguments, f"{folder / 'topo.txt'},host=2")
    assert result.exit_code == 1
    assert "topology_options" in result.stderr


def test_an_engine_file_without_a_machine_is_refused(folder: Path) -> None:
    """The number of GPUs is not in the file, so it has to be said."""
    (folder / "list.json").write_text("[[0, 1, 2, 3, 4, 5, 6, 7]]")
    result = command("evaluate", folder / "list.json", folder / "trace.npz")
    assert result.exit_code == 1
    assert "--topology" in result.stderr


@pytest.mark.parametrize("to", ["parquet", "jsonl", "npz"])
def test_traces_are_converted(folder: Path, to: str) -> None:
    """A trace becomes one of ours, with the layers of the model."""
    ids = np.random.default_rng(0).integers(0, 8, (64, 4))
    np.save(folder / "exflow.npy", ids)
    output = folder / f"out.{to}"
    model = ("--model", folder / "config.json")
    told = document("convert", folder / "exflow.npy", output, "--to", to, "--from", "exflow", *model)
    assert told["source_format"] == "exflow"
    trace = load(output)
    assert trace.layer_ids.tolist() == [1, 2, 3, 4]
    assert isinstance(trace, Trace)
    save(trace, folder / "again.npz")
    with np.load(folder / "again.npz") as arrays:
        assert arrays["topk_ids"][:, :, 0].tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("name", "content", "output", "code"),
    [
        ("weights.csv", "1,2,3\n4,5,6\n", "out.parquet", "counts_only"),
        ("trace.jsonl", '{"topk_ids": [[0, 1]]}\n', "out.npz", "output_suffix"),
    ],
)
def test_traces_that_are_not_converted(folder: Path, name: str, content: str, output: str, code: str) -> None:
    """Loads without tokens are no trace, and the suffix must say what the file is."""
    (folder / name).write_text(content)
    result = command("convert", folder / name, folder / output, "--to", "parquet")
    assert result.exit_code == 1
    assert code in result.stderr


def test_loads_are_kept_by_profile(folder: Path) -> None:
    """Loads are no trace: `convert` names `profile`, which keeps them exactly, and both sources give the same plan."""
    loads = np.random.default_rng(0).integers(1, 1000, (4, 8))
    np.save(folder / "loads.npy", loads.astype(np.float64))
    refused = command("convert", folder / "loads.npy", folder / "out.parquet", "--to", "parquet")
    assert refused.exit_code == 1
    assert f"moe-placement profile {folder / 'loads.npy'} -o profile.npz" in refused.stderr.replace("\n", " ")
    assert not (folder / "out.parquet").exists()
    kept = folder / "profile.npz"
    assert command("profile", folder / "loads.npy", "-o", kept, "--layer-ids", "1-4").exit_code == 0
    assert np.array_equal(Profile.load_file(kept).load, loads)
    plans = []
    for source, layers in ((folder / "loads.npy", ("--layer-ids", "1-4")), (kept, ())):
        options = ("--topology", "1x4", "--execution", "dispatch", "--dedup", "none", "--solver", "eplb")
        result = command("solve", source, *layers, *options, "-o", folder / "out.json")
        assert result.exit_code == 0, result.stderr
        plans.append(Plan.load(folder / "out.json"))
    assert np.array_equal(plans[0].physical_to_logical_map, plans[1].physical_to_logical_map)
    assert plans[0].layer_ids.tolist() == plans[1].layer_ids.tolist() == [1, 2, 3, 4]


def test_options_that_contradict(folder: Path) -> None:
    """The layout is said once, and the first MoE layer needs the number of layers."""
    config = ("--model", folder / "config.json", "--model-layers", 5)
    for model in (config, ("--first-moe-layer", 1), ("--mtp-layers", 1)):
        result = command("check", folder / "plan.json", *model)
        assert result.exit_code == 2
        assert "--model-layers" in result.stderr


def test_formats_lists_everything() -> None:
    """Every reader and every export is named, with how to load it."""
    listed = document("formats")
    assert {item["name"] for item in listed["placements"]} >= {"sglang", "trtllm", "megatron"}
    assert {item["name"] for item in listed["traces"]} >= {"npz", "exflow"}
    text = command("formats").stdout
    assert "--init-expert-location" in text


def test_convert_takes_what_a_trace_does_not_say(tmp_path: Path) -> None:
    """What an engine's file leaves out is given on the command line: layers and top-k of SGLang's responses."""
    ids = np.random.default_rng(0).permuted(np.tile(np.arange(8, dtype=np.int32), (6, 5, 1)), axis=2)[:, :, :2]
    ids[:, :2] = 0
    raw = base64.b64encode(np.ascontiguousarray(ids).tobytes()).decode()
    (tmp_path / "answer.json").write_text(json.dumps({"meta_info": {"routed_experts": raw}}))
    layers = ("--model-layers", 5, "--first-moe-layer", 2)
    where = (tmp_path / "answer.json", tmp_path / "out.npz", "--to", "npz", *layers)
    assert command("convert", *where).exit_code == 1
    assert command("convert", *where, "--top-k", 2, "--num-experts", 8).exit_code == 0
    made = load(tmp_path / "out.npz")
    assert isinstance(made, Trace)
    assert made.layer_ids.tolist() == [2, 3, 4]
    assert np.array_equal(next(iter(made.batches())).topk_ids, ids[:, 2:])


def test_check_tells_that_a_missing_last_expert_would_not_show(tmp_path: Path) -> None:
    """Where nobody says how many experts there are, the check says that it went by the largest id."""
    (tmp_path / "map.json").write_text(json.dumps({"physical_to_logical_map": [[0, 1, 2, 3, 4, 5, 6, 0]] * 4}))
    options = (tmp_path / "map.json", "--engine", "sglang", "--model-layers", 4, "--first-moe-layer", 1)
    told = command("check", *options)
    assert told.exit_code == 0
    assert "by the largest id" in told.output
    assert command("check", *options, "--num-experts", 8).exit_code == 1


def test_options_that_contradict_the_plan_are_refused(folder: Path) -> None:
    """Other layers, or a machine of another size, than those of the plan: nothing is written."""
    for options in (("--layer-ids", "2-5"), ("--topology", "2x4")):
        answer = command("export", folder / "plan.json", "--engine", "vllm-ascend", "-o", folder / "out.json", *options)
        assert answer.exit_code == 1, answer.output
        assert not (folder / "out.json").exists()


def test_top_k_that_contradicts_the_trace_is_told(folder: Path) -> None:
    """A trace knows its top-k: another one is refused, and that of a config is told, as recordings may be partial."""
    answer = command("profile", folder / "trace.npz", "--top-k", 4)
    assert answer.exit_code == 1
    assert "top_k_differ" in answer.output
    (folder / "other.json").write_text(json.dumps(CONFIG | {"num_experts_per_tok": 3}))
    assert "top-2, the model top-3" in command("profile", folder / "trace.npz", "--model", folder / "other.json").output


def test_engines_go_by_the_names_that_people_use(folder: Path) -> None:
    """`tensorrt_llm` and `trtllm` are one engine, to write, to check and to read its statistics."""
    model = ("--model", folder / "config.json", "--without-mtp")
    for name in ("trtllm", "tensorrt-llm", "TensorRT_LLM"):
        output = folder / f"{name}.yaml"
        told = document("export", folder / "plan.json", "--engine", name, "-o", output, *model)
        assert told["format"] == "trtllm"
        assert document("check", output, "--engine", name, "--topology", "2x2", *model)["valid"]
    (folder / "statistics").mkdir()
    save_file({"0_3": np.array([4, 5, 6], np.int32)}, folder / "statistics" / "rank0.safetensors")
    for name in ("trtllm", "tensorrt-llm"):
        counts = document("profile", folder / "statistics", "--format", name)
        assert (counts["layer_ids"], counts["num_experts"]) == ([3], 3)
    names = command("formats").stdout
    assert "trtllm or tensorrt_llm" in names
    assert "tensorrt_llm or trtllm" in names


@pytest.mark.parametrize(
    ("engine", "option", "takers"),
    [
        ("vllm-ascend", ("--layer", 2), "deepspeed"),
        ("sglang", ("--model-class", "A"), "hygon"),
        ("deepspeed", ("--model-name", "m", "--layer", 2), "hygon"),
        ("csv", ("--fill-missing",), "sglang"),
    ],
)
def test_options_without_effect_are_refused(folder: Path, engine: str, option: tuple[object, ...], takers: str) -> None:
    """What a format has no use for is not ignored: the formats that take it are named, and nothing is written."""
    model = ("--model", folder / "config.json", "--without-mtp")
    where = ("--engine", engine, "-o", folder / "out.json")
    answer = command("export", folder / "plan.json", *where, *model, *option)
    assert answer.exit_code == 1
    assert "option_unused" in answer.stderr
    assert takers in answer.stderr
    assert not (folder / "out.json").exists()


def test_a_class_of_what_is_read_is_no_option_of_what_is_written(folder: Path) -> None:
    """A HYGON file of two models is converted by naming one; a check of another format refuses the name."""
    model = ("--model", folder / "config.json", "--without-mtp")
    names = ("--model-class", "A", "--model-name", "m")
    source = folder / "hygon.json"
    document("export", folder / "plan.json", "--engine", "hygon", "-o", source, *model, *names)
    maps = json.loads(source.read_text())
    maps["model_maps"]["B"] = maps["model_maps"]["A"] | {"model_class": "B"}
    source.write_text(json.dumps(maps))
    out = ("convert", source, folder / "out.json", "--to", "sglang", "--topology", "2x2", *model)
    assert "model_class" in command(*out).stderr
    assert document(*out, "--model-class", "A")["format"] == "sglang"
    assert command("check", folder / "out.json", "--topology", "2x2", *model).exit_code == 0
    checked = command("check", folder / "out.json", "--topology", "2x2", "--model-class", "A", *model)
    assert checked.exit_code == 1
    assert "option_unused" in checked.stderr


@pytest.mark.parametrize(("topology", "code"), [("2x4", "num_gpus_differ"), ("1x4", "nodes_differ"), ("2x2", "")])
def test_check_holds_our_plan_against_the_machine(folder: Path, topology: str, code: str) -> None:
    """A plan of ours names its machine; another one than `--topology` is not called valid."""
    command("export", folder / "plan.json", "--engine", "npz", "-o", folder / "plan.npz")
    for name in ("plan.json", "plan.npz"):
        answer = command("check", folder / name, "--topology", topology)
        assert answer.exit_code == bool(code), answer.output
        assert code in answer.stderr


def test_convert_refuses_options_of_the_other_kind(folder: Path) -> None:
    """Options of placements with a trace, and the other way round, would do nothing: they are refused, all at once."""
    trace = ("convert", folder / "trace.npz", folder / "out.jsonl", "--to", "jsonl")
    answer = command(*trace, "--topology", "2x2", "--layer", 2)
    assert answer.exit_code == 1
    assert "--topology has no use" in answer.stderr
    assert "--layer has no use" in answer.stderr
    assert command(*trace).exit_code == 0
    placement = ("convert", folder / "plan.json", folder / "out.csv", "--to", "csv")
    answer = command(*placement, "--top-k", 2)
    assert answer.exit_code == 1
    assert "--top-k has no use" in answer.stderr
    assert command(*placement).exit_code == 0


def test_check_tells_layers_that_our_plan_lacks(folder: Path) -> None:
    """A plan may lack MoE layers of the model, but not in silence."""
    answer = command("check", folder / "plan.json", "--model-layers", 7, "--first-moe-layer", 1)
    assert answer.exit_code == 0
    assert "MoE layers [5, 6] of the model have no placement" in answer.stderr
    assert "no placement" not in command("check", folder / "plan.json", "--model", folder / "config.json").stderr
