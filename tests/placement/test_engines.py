"""The declared engines: their fields are valid and sourced, names are read, pages agree, layouts hold every expert."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engines import ENGINES, Engine, default_slots, engine_of, engine_of_format
from placement.engines.engine import Layout
from placement.exports import export_named
from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy
from traces import InputError
from traces.formats.registry import READERS

ROOT = Path(__file__).resolve().parents[2]
SOURCED = ["execution", "dedup", "ownership", "algorithms", "full_slots", "default_layout", "export"]
NO_ENGINE = ["npz", "parquet", "jsonl", "eplb", "moetuner", "flame", "llama_csv", "policylang", "transformers"]
NO_ENGINE += ["lmdeploy_routed_experts", "counts_csv", "logical_count"]
each_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


@each_engine
def test_fields_are_words_of_the_objective(engine: Engine) -> None:
    """Every value is one that an objective takes; messages and homes belong to a dispatch alone."""
    assert engine.execution in get_args(Execution)
    assert engine.default_layout in get_args(Layout)
    assert set(engine.algorithms.values()) <= set(get_args(ReplicaPolicy))
    assert {engine.dedup, *engine.backends.values()} <= {*get_args(Dedup), None}
    assert engine.ownership in (*get_args(Ownership), None)
    dispatched = engine.execution == "dispatch"
    assert (engine.dedup is not None) == dispatched
    assert (engine.ownership is not None) == dispatched
    assert engine.title
    assert engine.version


@each_engine
def test_the_declared_backend_is_one_of_the_listed(engine: Engine) -> None:
    """The messages are those of the setting that is named."""
    assert bool(engine.backend) == bool(engine.backends)
    if engine.backend:
        assert engine.backends[engine.backend] == engine.dedup


@each_engine
def test_its_file_can_hold_what_it_is_said_to(engine: Engine) -> None:
    """The placement format exists, takes replicas where the engine has them, and no empty slots where it wants none."""
    assert engine.export is not None
    export = export_named(engine.export)
    assert export.name == engine.export
    if engine.has_replicas:
        assert export.rules.replicas
    if not export.rules.empty:
        assert engine.full_slots


@each_engine
def test_every_default_has_a_source(engine: Engine) -> None:
    """Each field that states a default says where the engine's code has it."""
    assert sorted(engine.sources) == sorted(SOURCED)
    assert all(len(source) > len("file.py: f") for source in engine.sources.values())
    assert all(note.endswith(".") for note in engine.notes)


def test_every_trace_format_belongs_to_one_engine_or_to_none() -> None:
    """A new reader must say which engine its traces come from, or that they may come from anywhere."""
    assert {reader.engine for reader in READERS} - {None} <= ENGINES.keys()
    count = Counter(name for engine in ENGINES.values() for name in engine.trace_formats)
    assert set(count.values()) == {1}
    assert sorted([*count, *NO_ENGINE]) == sorted(reader.name for reader in READERS)
    for name in NO_ENGINE:
        assert engine_of_format(name) is None
    for name in count:
        found = engine_of_format(name)
        assert found is not None
        assert name in found.trace_formats


@pytest.mark.parametrize(
    ("text", "name", "policy"),
    [
        ("sglang", "sglang:static", "same_node"),
        (" SGLang:Dynamic ", "sglang:dynamic", "same_node"),
        ("vllm", "vllm:hash", "fair"),
        ("tensorrt_llm", "tensorrt-llm:round_robin", "fair"),
        ("trtllm:round_robin", "tensorrt-llm:round_robin", "fair"),
        ("vllm_ascend", "vllm-ascend:by_rank", "fair"),
        ("megatron", "megatron", None),
        ("exflow", "exflow", None),
    ],
)
def test_names_are_read(text: str, name: str, policy: str | None) -> None:
    """An engine alone means its default algorithm; case and underscores don't matter."""
    choice = engine_of(text)
    assert str(choice) == name
    assert choice.replica_policy == policy


@each_engine
def test_each_name_leads_back(engine: Engine) -> None:
    """Every engine and every algorithm can be named, and only one engine answers to a name."""
    for name in (engine.name, *engine.also_named):
        assert [other.name for other in ENGINES.values() if other.named(name)] == [engine.name]
    for algorithm in engine.algorithms:
        choice = engine_of(f"{engine.name}:{algorithm}")
        assert (choice.engine, choice.algorithm) == (engine, algorithm)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("sglnag", "unknown_engine", ["'sglnag'", "Did you mean sglang?", *ENGINES]),
        ("", "unknown_engine", ["''", *ENGINES]),
        ("x" * 10_000, "unknown_engine", ["sglang"]),
        ("transformers", "unknown_engine", ["'transformers'", "vllm-ascend"]),
        ("sglang:", "unknown_algorithm", ["SGLang 0.5.23", "''", "sglang:static, sglang:dynamic"]),
        ("sglang:magic", "unknown_algorithm", ["'magic'", "sglang:lp", "sglang for its default"]),
        ("vllm:static", "unknown_algorithm", ["vllm:hash"]),
        ("megatron:static", "unknown_algorithm", ["no redundant experts", "Write megatron."]),
    ],
)
def test_unknown_names_are_refused_with_the_choices(text: str, code: str, words: list[str]) -> None:
    """What is unknown is quoted, briefly, and what there is instead is listed; two lines at most."""
    with pytest.raises(InputError) as caught:
        engine_of(text)
    (violation,) = caught.value.violations
    assert (violation.code, violation.pointer) == (code, "/engine")
    said = f"{violation.detail}\n{violation.remedy}"
    assert [word for word in words if word not in said] == []
    assert len(violation.detail) <= 120
    assert len(violation.remedy) <= 180


def test_declarations_load_nothing_heavy() -> None:
    """Without the packages above them, the declarations need the standard library only."""
    code = f"""
import sys, types
for name in ("placement", "traces"):
    package = types.ModuleType(name)
    package.__path__ = [{str(ROOT)!r} + "/" + name]
    sys.modules[name] = package
before = set(sys.modules)
import placement.engines
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(*sorted(loaded - set(sys.stdlib_module_names) - {{"placement", "traces"}}))
print(len(placement.engines.ENGINES))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(ENGINES))]


@pytest.mark.parametrize(
    ("layout", "slots", "expected"),
    [
        ("contiguous", 2, [0, 1, 2, 3, 4, 5]),
        ("contiguous", 3, [0, 1, -1, 2, 3, -1, 4, 5, -1]),
        ("modulo", 2, [0, 1, 2, 3, 4, 5]),
        ("modulo", 3, [0, 1, 2, 3, 4, 5, 0, 1, 2]),
        ("overlapping", 2, [0, 1, 2, 3, 4, 5]),
        ("overlapping", 3, [0, 1, 2, 2, 3, 4, 4, 5, 0]),
    ],
)
def test_default_layouts(layout: Layout, slots: int, expected: list[int]) -> None:
    """Six experts on three GPUs, with and without redundant ones."""
    assert default_slots(layout, 6, 3, slots) == expected


@given(layout=st.sampled_from(get_args(Layout)), experts=st.integers(1, 40), gpus=st.integers(1, 9), data=st.data())
def test_default_layouts_hold_every_expert(layout: Layout, experts: int, gpus: int, data: st.DataObject) -> None:
    """No expert is missing; slots are empty in the contiguous layout only, which has each expert once."""
    slots_per_gpu = data.draw(st.integers(-(-experts // gpus), -(-experts // gpus) + 5))
    slots = default_slots(layout, experts, gpus, slots_per_gpu)
    held = Counter(slots)
    assert len(slots) == gpus * slots_per_gpu
    assert held.keys() - {-1} == set(range(experts))
    empty = held.pop(-1, 0)
    assert empty == (len(slots) - experts if layout == "contiguous" else 0)


def test_too_few_slots_are_refused() -> None:
    """A layout that would lose experts is no layout."""
    with pytest.raises(InputError, match="no room for 9 experts"):
        default_slots("modulo", 9, 2, 4)


def shown(engine: Engine, field: str) -> str:
    """Return a default as the engine's page shows it."""
    value = getattr(engine, field)
    if field == "algorithms":
        return ", ".join(f"`{name}`: `{policy}`" for name, policy in value.items()) or "no replicas"
    return "none" if value is None else "yes" if value is True else "no" if value is False else f"`{value}`"


def table_of(engine: Engine) -> str:
    """Return the table that the engine's page has to hold."""
    rows = ["| default | value |", "|---|---|"]
    return "\n".join(rows + [f"| `{field}` | {shown(engine, field)} |" for field in engine.sources])


@each_engine
def test_pages_tell_what_the_name_sets(engine: Engine) -> None:
    """The page of an engine has its section, version, notes and defaults, each with the place in its code."""
    text = (ROOT / "docs" / "engines" / f"{engine.page}.md").read_text(encoding="utf-8")
    title = f"## What `--engine {engine.name}` sets"
    sections = re.findall(r"^(## [^\n]*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    (section,) = [body for heading, body in sections if heading == title]
    assert f"{engine.title} {engine.version}" in section
    assert table_of(engine) in section
    told = " ".join(section.split())
    assert [field for field, source in engine.sources.items() if f"- `{field}`: `{source}`" not in told] == []
    unwrapped = " ".join(section.replace("\n  ", " ").split())
    assert [note for note in engine.notes if note not in unwrapped.replace("`", "")] == []
    for backend, dedup in engine.backends.items():
        assert f"| `{backend}` | {'every rank gets every token' if dedup is None else f'`{dedup}`'} |" in section


def test_every_page_has_the_section() -> None:
    """A page without an engine says so."""
    for page in sorted((ROOT / "docs" / "engines").glob("*.md")):
        if page.stem == "compatibility":
            continue  # a table of what was tried
        text = page.read_text(encoding="utf-8")
        assert re.search(r"^## What `--engine [a-z-]+` sets$", text, re.MULTILINE), page.name
