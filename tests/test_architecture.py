"""What holds for the repository as a whole: import directions, light start, documentation that keeps up."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import solvers
from placement.exports import EXPORTS
from tests import conftest
from traces.formats.registry import READERS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("moe_placement", "traces", "placement", "solvers", "api", "tests", "docs", "examples", "benchmarks", ".ci")
SUFFIXES = {".py", ".md", ".toml", ".txt", ".css", ".js", ".html", ".json", ".sh", ".mako", ""}
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```$|^    [^\n]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def documents() -> list[Path]:
    """Return the Markdown files of the repository."""
    return [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


def texts() -> Iterator[tuple[str, str]]:
    """Yield name and content of the project's text files."""
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    for path in files:
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_imports_go_one_way() -> None:
    """The import-linter contracts of pyproject.toml hold."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kept, 0 broken" in done.stdout


def test_command_line_starts_without_heavy_libraries() -> None:
    """Importing the command line imports none of the libraries that take long, so that --help is instant."""
    heavy = "numpy scipy numba pulp ortools fastapi sqlalchemy pydantic pyarrow"
    code = f"import sys, api.cli; print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    assert run_python(code) == ""


PACKAGES = ("moe_placement", "traces", "placement", "solvers", "api")


def modules(package: str) -> dict[str, Path]:
    """Return the modules of a package by name."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: set[str]) -> set[str]:
    """Return the modules that one imports: at its top, within functions, for types alone, and by name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= whole & known | ({str(node.module)} if whole - known else set())
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            names |= {str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant)}
    return names & known


def circle(graph: dict[str, set[str]]) -> str:
    """Return a circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_no_module_imports_itself_by_a_detour() -> None:
    """There is no circle, within a package or across them, not even by a late import or one by name."""
    found = {name: path for package in PACKAGES for name, path in modules(package).items()}
    graph = {name: imported(path, set(found)) - {name} for name, path in found.items()}
    assert sum(map(len, graph.values())) > len(graph)
    assert circle(graph) == ""


@pytest.mark.parametrize(
    "text",
    [
        "def late():\n    from a.b import c",
        "if TYPE_CHECKING:\n    import a.b",
        "import_module('a.b').c",
        "importlib.import_module('a.b')",
    ],
)
def test_hidden_imports_are_seen(text: str, tmp_path: Path) -> None:
    """Late imports, imports for types, and imports by name count."""
    (tmp_path / "m.py").write_text(text, encoding="utf-8")
    assert imported(tmp_path / "m.py", {"a.b"}) == {"a.b"}
    assert circle({"m": {"a.b"}, "a.b": {"m"}})


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_short(package: str) -> None:
    """No module has more than 300 lines."""
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(package).items()}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_what_runs_first_is_there() -> None:
    """A file of tests that has another name is named so where the order is as well."""
    assert [name for name in conftest.FIRST if not (ROOT / "tests" / name).exists()] == []


@pytest.mark.parametrize("module", ["traces", "traces.support.errors"])
def test_errors_cost_no_numpy(module: str) -> None:
    """Names of the package are imported when they are used, so that refusals are quick."""
    code = f"import sys, {module}, traces; traces.InputError; print(*{{'numpy', 'numba'}} & set(sys.modules))"
    assert run_python(code) == ""


@pytest.mark.parametrize("package", ["traces", "placement", "solvers"])
def test_public_names_exist(package: str) -> None:
    """Everything in a package's __all__ can be imported."""
    code = f"import {package} as p; print(*[name for name in p.__all__ if not hasattr(p, name)])"
    assert run_python(code) == ""


@pytest.mark.parametrize("name", solvers.names())
def test_every_solver_has_a_section(name: str) -> None:
    """docs/solvers.md has a section for each registered solver, with its parameters and an example."""
    text = (ROOT / "docs" / "solvers.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert name in sections
    assert "**Parameters**" in sections[name]
    assert "**Example**" in sections[name]
    options = [option.name for option in fields(solvers.solver_class(name))]
    assert [option for option in options if f"`{option}`" not in sections[name]] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "methods").glob("*.md")), ids=lambda path: str(path.stem))
def test_pages_of_methods_follow_the_recipe(page: Path) -> None:
    """Problem, model, parameters, example in shell and Python, and when to use it; each of a registered solver."""
    text = page.read_text(encoding="utf-8")
    assert page.stem in solvers.names()
    wanted = ["## Problem", "## Model", "## Parameters", "## Example", "```sh", "```python", "## When"]
    assert [part for part in wanted if f"\n{part}\n" not in text] == []
    options = [option.name for option in fields(solvers.solver_class(page.stem))]
    assert [option for option in options if f"| `{option}` |" not in text] == []
    assert f"methods/{page.stem}.md" in (ROOT / "docs" / "solvers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [reader.name for reader in READERS])
def test_every_format_is_described(name: str) -> None:
    """docs/formats.md mentions each trace format."""
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8"), re.MULTILINE)
    known = {"jsonl": "json lines"}
    assert any(known.get(name, name) in heading.lower() for heading in headings)


@pytest.mark.parametrize("name", [export.name for export in EXPORTS])
def test_every_export_has_a_section(name: str) -> None:
    """docs/formats.md has a heading for each placement format."""
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert any(f"`{name}`" in heading for heading in headings)


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links in the documentation point at files of the repository."""
    prose = CODE.sub("", document.read_text(encoding="utf-8"))
    targets = [link for link in LINK.findall(prose) if "://" not in link]
    assert [link for link in targets if not (document.parent / link).exists()] == []


def examples() -> list[str]:
    """Return the pages whose Python examples stand for themselves."""
    names = ("solvers", "bounds", "formats", "front", "replan", "residency", "survive", "mixtures")
    pages = [ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in names)]
    return [str(page.relative_to(ROOT)) for page in (*pages, *sorted(ROOT.glob("docs/methods/*.md")))]


@pytest.mark.slow
@pytest.mark.parametrize("name", examples())
def test_python_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python examples of the documentation run as they stand, each with names of its own."""
    shutil.copytree(ROOT / "examples" / "tiny_moe", tmp_path / "examples" / "tiny_moe")
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall((ROOT / name).read_text(encoding="utf-8"))
    assert blocks
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name}, example {number}", "exec"), {"__name__": "__main__"})


def test_text_names_no_machine() -> None:
    """No file names an absolute path of the machine that it was written on, or a package registry's host."""
    words = [r"/home/\w", r"/work/\w", r"/root/", r"/Users/\w", r"index-url", r"find-links", r"files\.pythonhosted"]
    pattern = re.compile("|".join(words))
    here = str(Path(__file__).relative_to(ROOT))
    named = {name: found.group() for name, text in texts() if name != here and (found := pattern.search(text))}
    assert named == {}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_documents_are_short(document: Path) -> None:
    """No line of the documentation has more than 120 columns."""
    lines = document.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []
