"""The engines' own code in tests: where it is, and stand-ins for the GPU packages that it imports.

`make engines` unpacks releases into a folder, and names it in ``MOE_PLACEMENT_ENGINES``; without it, these tests are
skipped. Each file of tests runs in a process of its own there, as stand-ins for modules outlive a test.
"""

from __future__ import annotations
import __future__ as future

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
import os
import random
import sys
import tomllib
import types
import typing
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from traces import ModelLayout

__all__ = ["EXPERTS", "GPUS", "MODEL", "SLOTS", "engine", "module", "own", "stand_in"]

FOLDER = os.environ.get("MOE_PLACEMENT_ENGINES")
PINS = Path(__file__).with_name("pins.toml")
# The plan of `conftest.py`: a redundant expert on every GPU, and a dense layer first.
EXPERTS, GPUS, SLOTS = 16, 4, 5
MODEL = ModelLayout.of(5, first_moe_layer=1, num_experts=EXPERTS)


class Stubs:
    """Finds packages that are not installed, by name: whatever is asked of them is there, and does nothing."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = {name for name in names if importlib.util.find_spec(name) is None}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return a spec for a stubbed package and everything below it."""
        if name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        """Return the stand-in."""
        made = MagicMock(name=spec.name)
        made.__path__, made.__spec__, made.__name__, made.__version__ = [], spec, spec.name, "99.0"
        return made

    def exec_module(self, made: Any) -> None:
        """Have nothing to run."""


@functools.cache
def prepare(name: str) -> None:
    """Put the engines' folder on the path, and stubs for what this engine imports in vain."""
    for early in ("torch._dynamo", "torch.utils.flop_counter", "torch._dynamo.testing", "transformers"):
        importlib.import_module(early)  # now, as PyTorch would take a stub of Triton for the real one
    sys.path.insert(0, str(FOLDER))
    if not hasattr(typing, "override"):  # new in Python 3.12, which Megatron asks for
        vars(typing)["override"] = lambda method: method
    stubs: Any = Stubs(tomllib.loads(PINS.read_text())[name]["stubs"])
    sys.meta_path.append(stubs)


def engine(name: str) -> Path:
    """Return the folder of an engine's package, or skip."""
    if FOLDER is None:
        pytest.skip("the engines' code is not here: `make engines` gets it, and runs these tests")
    pytest.importorskip("torch", reason="the engines' code needs PyTorch")
    folder = Path(FOLDER) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in the folder of MOE_PLACEMENT_ENGINES")
    return folder


def module(name: str) -> Any:
    """Import a module of an engine as it is, with stubs for GPU packages; or skip."""
    first = name.partition(".")[0]
    engine(first)
    prepare(first)
    return importlib.import_module(name)


def own(file: str, *names: str, **namespace: Any) -> Any:
    """Return functions and classes of an engine's file, by name, without the rest of the file."""
    path = engine(file.partition("/")[0]).parent / file
    torch: Any = importlib.import_module("torch")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds) and node.name in names]
    for node in found:
        node.decorator_list = []
    assert sorted(node.name for node in found) == sorted(names), f"{file} has changed"
    code = compile(
        ast.Module(body=list[ast.stmt](found), type_ignores=[]), file, "exec", future.annotations.compiler_flag
    )
    made = {"torch": torch, "np": np, "random": random, "defaultdict": defaultdict, **namespace}
    exec(code, made)
    return SimpleNamespace(**{name: made[name] for name in names})


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path | None = None, **content: Any) -> None:
    """Put a module in place of one of the engine's; with a folder, it is a package whose other modules are real."""
    made: ModuleType = types.ModuleType(name)
    made.__dict__.update(content)
    if folder is not None:
        made.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, name, made)
