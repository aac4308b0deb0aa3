"""The same words mean the same problem at every door: command line, REST, its client and Python, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import solvers
from api.cli import app
from api.client import Client
from api.jobs.processes import process_pool
from api.resources.schemas import PlanBody
from placement import Constraints, Group, LayerCap, Objective, Pin, Survive
from tests.api.conftest import Server
from tests.builders.service import npz_bytes
from traces import InputError

EXAMPLES = 200
FLAGS = {"work": "--work-limit", "layer_load_caps": "--layer-load-cap", "groups": "--group"}
MEMBERS = {"pins": Pin, "forbidden": Pin, "groups": Group, "layer_load_caps": LayerCap}
REFUSED = 422


@dataclass(frozen=True)
class Said:
    """What is asked, as REST nests it; only what is said."""

    words: dict[str, Any] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Return it as the command line has it."""
        flat: dict[str, Any] = {}
        for name, value in self.words.items():
            flat |= value if isinstance(value, dict) else {name: value}
        told: list[str] = []
        for name, value in flat.items():
            flag = FLAGS.get(name, f"--{name.removesuffix('s') if name == 'pins' else name}".replace("_", "-"))
            flag = "--forbid" if name == "forbidden" else flag
            if name == "survive":
                told += [flag, str(Survive(**value))]
            elif isinstance(value, bool):
                told.append(flag if value else f"--no-{flag[2:]}")
            elif isinstance(value, list):
                told += [part for item in value for part in (flag, _text(name, item))]
            else:
                told += [flag, str(value)]
        return told

    def fields(self) -> dict[str, Any]:
        """Return it as Python has it."""
        made = dict(self.words)
        constraints = dict(made.pop("constraints", {}))
        for name, kind in MEMBERS.items():
            if name in constraints:
                constraints[name] = tuple(kind(**_plain(item)) for item in constraints[name])
        if "survive" in constraints:
            constraints["survive"] = Survive(**constraints["survive"])
        return made | {
            "objective": Objective(**made.pop("objective", {})),
            "constraints": Constraints(**constraints),
            "limits": solvers.Limits(**made.pop("limits")),
        }


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}


def _text(name: str, item: dict[str, Any]) -> str:
    """Return a pin, a group or a layer's cap as the command line writes it."""
    layer = item.get("layer_id")
    if name == "layer_load_caps":
        return f"{item['load_cap']}@{layer}"
    head = ",".join(map(str, item["experts"])) if name == "groups" else f"{item['expert']}@{item['gpu']}"
    return head if layer is None else f"{head}@{layer}"


LAYERS = st.sampled_from([None, 1, 2])
PINS = st.builds(
    lambda expert, gpu, layer: {"expert": expert, "gpu": gpu} | ({} if layer is None else {"layer_id": layer}),
    st.integers(0, 11),
    st.integers(0, 4),
    LAYERS,
)
GROUPS = st.builds(
    lambda experts, layer: {"experts": experts} | ({} if layer is None else {"layer_id": layer}),
    st.lists(st.integers(0, 11), min_size=2, max_size=3, unique=True),
    LAYERS,
)
CAPS = st.builds(
    lambda layer, cap: {"layer_id": layer, "load_cap": cap}, st.integers(1, 3), st.sampled_from([1.1, 1.5, 2.0])
)
WEIGHTS = st.sampled_from([0.0, 0.5, 3.0])


def some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw some of the fields."""
    return st.fixed_dictionaries({}, optional=options)


REQUESTS = st.builds(
    lambda always, rest: Said(always | {name: value for name, value in rest.items() if value != {}}),
    st.fixed_dictionaries(
        {
            "topology": st.sampled_from(["1x4", "2x2", "1x3", "2+1"]),
            "limits": st.fixed_dictionaries({"work": st.integers(1, 400)}),
            "solver": st.sampled_from(
                ["auto", "annealing", "eplb", "contiguous", "round_robin", "random", "load_balance", "assignment"]
            ),
            "seed": st.integers(0, 3),
        }
    ),
    some(
        engine=st.sampled_from(
            ["sglang", "sglang:dynamic", "vllm", "tensorrt-llm", "vllm-ascend", "megatron", "deepspeed", "exflow"]
        ),
        slots_per_gpu=st.integers(3, 5),
        redundant_experts=st.integers(0, 4),
        expert_bytes=st.just(1000),
        hold_out=st.sampled_from([0, 0.3, 0.5]),
        hold_out_by=st.sampled_from(["sequence", "time", "source"]),
        seeds=st.integers(1, 2),
        objective=some(
            execution=st.sampled_from(["context_coherent", "dispatch"]),
            dedup=st.sampled_from(["none", "gpu", "node"]),
            ownership=st.sampled_from(["token", "sequence"]),
            replica_policy=st.sampled_from(["fair", "same_gpu", "same_node"]),
            imbalance_weight=WEIGHTS,
            load_spread_weight=WEIGHTS,
            traffic_weight=st.sampled_from([0.5, 1.0]),
        ),
        constraints=some(
            load_cap=st.sampled_from([1.05, 1.2]),
            layer_load_caps=st.lists(CAPS, min_size=1, max_size=2),
            load_quantile=st.sampled_from([0.8, 0.9]),
            pins=st.lists(PINS, min_size=1, max_size=2),
            forbidden=st.lists(PINS, min_size=1, max_size=2),
            groups=st.lists(GROUPS, min_size=1, max_size=1),
            distinct_replicas=st.booleans(),
            extra_replicas=st.integers(0, 3),
            full_slots=st.booleans(),
            survive=some(failures=st.integers(1, 2), lost=st.sampled_from([0, None, 2])).flatmap(
                lambda rest: st.sampled_from([{"unit": unit} | rest for unit in ("gpus", "hosts", "nodes", "links")])
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Answer:
    """The plan file's content, or the codes of what is wrong."""

    plan: dict[str, Any] | None = None
    codes: tuple[str, ...] = ()


class Doors:
    """All doors to one small trace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "small.npz"
        self.trace.write_bytes(npz_bytes(tokens=240, layers=3, experts=12))
        self.server = Server.start(folder / "data")
        self.client = Client(str(self.server.http.base_url))
        self.trace_id = self.client.upload(self.trace).id

    def python(self, said: Said) -> Answer:
        """Ask the library."""
        try:
            study = solvers.Study.of(self.trace, **said.fields())
            return Answer(plan=study.solve(workers=1).plan.as_dict())
        except InputError as error:
            return Answer(codes=tuple(sorted(item.code for item in error.violations)))
        except solvers.NoPlanError:
            return Answer(codes=("no_plan",))

    def command(self, said: Said) -> Answer:
        """Ask the command line."""
        output = self.folder / "plan.json"
        output.unlink(missing_ok=True)
        told = CliRunner().invoke(app, ["solve", str(self.trace), *said.options(), "-o", str(output), "--json"])
        assert told.exit_code in (0, 1, 3), (told.stderr, told.exception)
        if told.exit_code == 0:
            return Answer(plan=json.loads(output.read_text()))
        if told.exit_code == 3:
            return Answer(codes=("no_plan",))
        return Answer(codes=tuple(sorted(item["code"] for item in json.loads(told.stdout)["violations"])))

    def rest(self, said: Said) -> Answer:
        """Ask the service."""
        body = said.words | {"trace": self.trace_id}
        answer = self.server.http.post("/v1/plans", json=body, headers={"Prefer": "wait=60"})
        if answer.status_code == REFUSED:
            return Answer(codes=tuple(sorted(item["code"] for item in answer.json()["errors"])))
        found = answer.raise_for_status().json()
        if found["status"] == "failed":
            problem = found["error"]
            codes = tuple(sorted(item["code"] for item in problem.get("errors", [])))
            return Answer(codes=codes or ("no_plan",))
        return Answer(plan=self.server.http.get(f"/v1/plans/{found['id']}/plan").raise_for_status().json())

    def typed(self, said: Said) -> Answer:
        """Ask the service through its client, for a request that it takes."""
        body = PlanBody.model_validate(said.words | {"trace": self.trace_id})
        return Answer(plan=self.client.plan_file(self.client.wait(self.client.plan(body).id).id))


@pytest.fixture(scope="module")
def processes() -> Iterator[None]:
    """Keep the processes that commands search seeds in: each command would start its own, which load all loops anew."""
    kept = process_pool(2, 0, None, preload=["solvers.study", "solvers.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "shutdown", lambda *, cancel_futures: None)
        patch.setattr("api.jobs.processes.process_pool", lambda *_, **__: kept)
        yield
    kept.shutdown()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, processes: None) -> Iterator[Doors]:
    """Open all doors."""
    opened = Doors(tmp_path_factory.mktemp("doors"))
    yield opened
    opened.client.close()
    opened.server.kill()


def text(plan: dict[str, Any] | None) -> str:
    """Return a plan file's bytes, sorted by name; where the trace was read from is the only thing that may differ."""
    assert plan is not None
    told = json.loads(json.dumps(plan))
    for source in told["provenance"]["trace"]:
        source.pop("source")
    return json.dumps(told, sort_keys=True, indent=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
@given(said=REQUESTS)
def test_the_same_words_mean_the_same_problem(doors: Doors, said: Said) -> None:
    """A request gives byte-identical plan files with their scores, or the same refusal, whoever is asked."""
    own = doors.python(said)
    told, served = doors.command(said), doors.rest(said)
    if own.plan is None:
        event("refused")
        assert (told.codes, served.codes) == (own.codes, own.codes)
        return
    event("planned")
    assert text(told.plan) == text(own.plan)
    assert text(served.plan) == text(own.plan)
    assert text(doors.typed(said).plan) == text(own.plan)
