"""The recipe pages of the engines name commands, options, engines and formats that exist, and their code works."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import solvers
from api.cli.entry import app
from placement import Plan, exports
from placement.engines import ENGINES as ENGINES_BY_NAME
from traces.formats.registry import READERS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "engines"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "compatibility")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(moe-placement [^`]*)`")
VALUES = {
    "--engine": {export.name for export in exports.EXPORTS} | set(ENGINES_BY_NAME),
    "--format": {reader.name for reader in READERS},
    "--solver": set(solvers.names()),
    "--execution": {"dispatch", "context-coherent"},
    "--dedup": {"none", "gpu", "node"},
    "--ownership": {"token", "sequence", "measured"},
}
ENGINES = (
    "deepspeed",
    "exflow",
    "lmdeploy",
    "megatron",
    "sglang",
    "tensorrt_llm",
    "transformers",
    "vllm",
    "vllm_ascend",
)
REDUNDANT = [
    ("vllm", '"num_redundant_experts": '),
    ("vllm_ascend", '"num_redundant_experts": '),
    ("sglang", "--ep-num-redundant-experts"),
]
SECTIONS = ("## Record", "## Trace and plan", "## Load", "## Is it active?", "**Trap.**")


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every moe-placement command of a page, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *INLINE.findall(text)):
        if line.startswith("moe-placement "):
            yield shlex.split(line)[1:]


def test_every_engine_has_a_page_with_all_sections() -> None:
    """Record, plan, load, see that it is active, and a trap: nothing is missing."""
    assert tuple(page.stem for page in PAGES) == ENGINES
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert [section for section in SECTIONS if section not in text] == [], page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page: Path) -> None:
    """Each command is one of the command line's, takes the options that it is given, and their values are known."""
    group: Any = typer.main.get_command(app)
    found = list(commands(page))
    names = {words[0] for words in found}
    assert {"profile", "solve"} <= names
    for words in found:
        command = group.commands[words[0]]
        parsed, arguments, _ = command.make_parser(command.context_class(command)).parse_args(words[1:])
        assert arguments == [], words
        required = [parameter.name for parameter in command.params if parameter.required]
        assert [name for name in required if parsed.get(name) in (None, ())] == [], words
        for option, allowed in VALUES.items():
            given = [value for flag, value in pairwise(words) if flag == option]
            assert set(given) <= allowed, words


@pytest.mark.parametrize(("page", "setting"), REDUNDANT)
def test_the_number_of_redundant_experts_is_set(page: str, setting: str) -> None:
    """Where an engine is told how many replicas there are, the section on loading tells it."""
    text = next(path for path in PAGES if path.stem == page).read_text(encoding="utf-8")
    load = text[text.index("## Load") : text.index("## Is it active?")]
    assert any(setting in block for block in BLOCK.findall(load))


def test_exports_are_checked_as_well() -> None:
    """Where a page writes a file, it also says how to check it, with the same engine."""
    for page in PAGES:
        flags: dict[str, set[str]] = {"export": set(), "check": set()}
        for words in commands(page):
            if words[0] in flags:
                flags[words[0]].add(words[words.index("--engine") + 1])
        if page.stem not in ("transformers", "lmdeploy"):  # those of other pages, and counts
            assert flags["export"] == flags["check"] != set(), page.name


def test_renumbering_keeps_the_model(tmp_path: Path) -> None:
    """The command of the transformers page gives a model that computes the same, with its experts in another order."""
    torch: Any = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
    transformers: Any = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")
    config = transformers.MixtralConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "MODEL")
    page = PAGES[ENGINES.index("transformers")]
    (words,) = [words for words in commands(page) if words[0] == "renumber"]
    orders = [[3, 1, 0, 2], [1, 2, 3, 0]]
    Plan.of(orders, layer_ids=[0, 1], num_experts=4, gpus_per_node=(2,)).save(tmp_path / "plan.json")
    files = ("plan.json", "MODEL", "renumbered")
    result = CliRunner().invoke(app, [str(tmp_path / word) if word in files else word for word in words])
    assert result.exit_code == 0, result.output
    again = transformers.MixtralForCausalLM.from_pretrained(tmp_path / "renumbered").eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
    for layer, order in enumerate(orders):
        old, new = model.model.layers[layer].mlp, again.model.layers[layer].mlp
        assert torch.equal(new.experts.down_proj, old.experts.down_proj[order])
        assert torch.equal(new.gate.weight, old.gate.weight[order])


def test_the_pinned_engines_are_those_of_the_declarations() -> None:
    """`make engines` tries the releases that the declarations were read from, and its page names them."""
    pins = tomllib.loads((Path(__file__).parent / "engines" / "pins.toml").read_text())
    shown = (FOLDER / "compatibility.md").read_text(encoding="utf-8")
    for name, pin in pins.items():
        if name == "environment":
            continue
        declared = ENGINES_BY_NAME.get(name.replace("_", "-"))
        assert declared is None or declared.version == pin["version"]
        assert f"{pin['package']} {pin['version']}" in shown
