"""The quality benchmark: its instances make problems, and a tiny run gives table, figures and file."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from traces import Trace
from traces.synthetic import Synthetic, generate

FOLDER = Path(__file__).parents[2] / "benchmarks"


def quality(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    script = [sys.executable, str(FOLDER / "quality.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, check=False, cwd=FOLDER.parent)


@pytest.fixture
def instances(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the registry as the scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("instances")


def small(source: Synthetic) -> Trace:
    """Return few tokens of a synthetic family."""
    return generate(dataclasses.replace(source, num_tokens=32, topics=4))


def test_every_synthetic_instance_makes_a_problem(instances: ModuleType) -> None:
    """Sizes, slots and topology of each specification fit together."""
    made = {name: one for name, one in instances.INSTANCES.items() if isinstance(one.source, Synthetic)}
    sizes = {(one.source.num_layers, one.source.num_experts, one.source.top_k) for one in made.values()}
    assert {(32, 8, 2), (26, 64, 6), (24, 32, 4), (58, 256, 8), (94, 128, 8), (61, 384, 8)} <= sizes
    for name, one in made.items():
        few = dataclasses.replace(one.source, num_layers=2)
        problem = one.problem(small(few))
        assert problem.num_slots >= problem.num_experts, name
        assert (problem.objective.execution == "dispatch") == (one.dedup is not None), name


def test_recorded_instances_say_what_is_missing(instances: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the folder, the reason names the variable that points to it."""
    monkeypatch.delenv("MOE_PLACEMENT_DATA", raising=False)
    with pytest.raises(instances.MissingTraceError, match="MOE_PLACEMENT_DATA"):
        instances.INSTANCES["deepseek_1x4"].parts()


def test_tiny_run_gives_table_and_file(tmp_path: Path) -> None:
    """Two methods and two seeds: a line per method, a record per run, the same plan under a work limit."""
    found = tmp_path / "runs.json"
    methods = ["--method", "contiguous", "--method", "annealing:restarts=2", "--method", "topology_load"]
    done = quality("--instance", "sample_1x4", *methods, "--seeds", "2", "--work-limit", "2000", "--json", str(found))
    assert done.returncode == 0, done.stderr
    assert "| annealing:restarts=2" in done.stdout
    assert "left out: topology_load" in done.stdout
    assert "What to look at" in done.stdout
    document = json.loads(found.read_text(encoding="utf-8"))
    runs = {(run["method"], run["seed"]): run for run in document["runs"]}
    assert set(runs) == {(method, seed) for method in ("contiguous", "annealing:restarts=2") for seed in (0, 1)}
    for run in runs.values():
        assert run["objective"] >= run["bound"] > 0
        assert run["imbalance_fit"] >= 1
        assert run["peak_bytes"] > 2**20
    assert runs["contiguous", 0]["objective"] == runs["contiguous", 1]["objective"]
    assert runs["annealing:restarts=2", 0]["objective"] < runs["contiguous", 0]["objective"]


def test_bad_requests_are_refused_before_any_run() -> None:
    """Names of instances and options are checked first."""
    assert "no instance matches nothing" in quality("--instance", "nothing").stderr
    assert "unknown_option" in quality("--method", "annealing:restart=2").stderr
