"""The launch flags of SGLang's page go through SGLang's own parser and checks; which models take a placement."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from placement.engines.sglang_models import WITHOUT_PLACEMENT
from tests.engines.harness import engine, module, stand_in
from tests.engines.recipes import commands


def arguments(words: list[str]) -> Any:
    """Return SGLang's arguments for a command line."""
    server = module("sglang.srt.server_args")
    parser = argparse.ArgumentParser(allow_abbrev=False)
    server.ServerArgs.add_cli_args(parser)
    return server.ServerArgs.from_cli_args(parser.parse_args([word for word in words if not word.startswith("2>")]))


@pytest.mark.parametrize("words", commands("sglang", "sglang.launch_server"), ids=" ".join)
def test_the_page_launches(words: list[str]) -> None:
    """Each command line is parsed, and passes the checks of dispatch and placement."""
    checks = module("sglang.srt.arg_groups.parallel_hook")
    checks.handle_eplb_and_dispatch(arguments(words))


@pytest.mark.parametrize(
    ("backend", "algorithm", "accepted"),
    [("none", "static", False), ("none", "lp", False), ("none", "dynamic", True), ("deepep", "static", True)],
)
def test_static_dispatch_needs_a_backend(backend: str, algorithm: str, accepted: bool) -> None:
    """Without an all-to-all back end, `static` and `lp` are refused: as the page says."""
    checks = module("sglang.srt.arg_groups.parallel_hook")
    line = "--model-path M --tp-size 8 --ep-size 8 --init-expert-location x.json --ep-dispatch-algorithm"
    made = arguments([*line.split(), algorithm, "--moe-a2a-backend", backend])
    if accepted:
        checks.handle_eplb_and_dispatch(made)
    else:
        with pytest.raises(ValueError, match="moe-a2a-backend none"):
            checks.handle_eplb_and_dispatch(made)


@pytest.mark.parametrize("backend", ["none", "deepep"])
def test_the_algorithm_that_is_left_out(backend: str) -> None:
    """Left out, it is `dynamic` without a back end and `static` with one."""
    checks = module("sglang.srt.arg_groups.parallel_hook")
    overrides = module("sglang.srt.arg_groups.overrides")
    line = "--model-path M --tp-size 8 --ep-size 8 --init-expert-location x.json --moe-a2a-backend"
    made = arguments([*line.split(), backend])
    checks.handle_eplb_and_dispatch(made)
    resolved = overrides.resolved_view(made).ep_dispatch_algorithm
    assert resolved == {"none": "dynamic", "deepep": "static"}[backend]


# A layer of experts, or the making of a block of another file that has one.
EXPERTS_RUN = re.compile(r"(?i:fused_?moe)|get_moe_impl_class|\b\w*(?:MoE|Moe|MoEBlock|MoeBlock)\(")


def classes(folder: Path) -> tuple[dict[str, list[str]], set[str], set[str], set[str]]:
    """Return the bases of model classes, those that define the method, those of files with experts, entry points."""
    bases: dict[str, list[str]] = {}
    defines: set[str] = set()
    runs: set[str] = set()
    entries: set[str] = set()
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, []).extend(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                if EXPERTS_RUN.search(text):
                    runs.add(node.name)
                if any(getattr(item, "name", "") == "get_model_config_for_expert_location" for item in node.body):
                    defines.add(node.name)
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EntryClass":
                entries |= {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}
    return bases, defines, runs, entries


def test_the_models_that_ignore_a_placement() -> None:
    """Our list is that of the wheel: entry points with experts that neither have nor inherit what SGLang asks for."""
    bases, defines, runs, entries = classes(engine("sglang") / "srt" / "models")

    def among(name: str, having: set[str], seen: frozenset[str] = frozenset()) -> bool:
        inherited = [base for base in bases.get(name, []) if base not in seen]
        return name in having or any(among(base, having, seen | {name}) for base in inherited)

    assert among("DeepseekV3ForCausalLM", defines)
    found = {name for name in entries if among(name, runs) and not among(name, defines)}
    assert found == set(WITHOUT_PLACEMENT)


def test_a_class_without_the_method_ignores_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SGLang reads the file, asks such a class for its layers, and goes on without a placement and without a word."""
    location = module("sglang.srt.eplb.expert_location")
    file = tmp_path / "location.json"
    file.write_text('{"physical_to_logical_map": [[0, 1, 2, 3]]}')
    moe = SimpleNamespace(init_expert_location=str(file), ep_num_redundant_experts=0, ep_join_mode=None)
    monkeypatch.setattr(location, "get_exec", lambda: SimpleNamespace(moe=moe))
    monkeypatch.setattr(location, "get_device", lambda: SimpleNamespace(device="cpu"))
    loader = "sglang.srt.model_loader"
    stand_in(monkeypatch, loader, get_model_architecture=lambda config: (object, "MixtralForCausalLM"))
    assert location.compute_initial_expert_location_metadata(SimpleNamespace(hf_config=None), 0) is None
