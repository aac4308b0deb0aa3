"""The scripts and the notebook that a researcher would start from: short, and they run."""

from __future__ import annotations

import ast
import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples" / "scripts").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NEEDS = {"plot.py": ("matplotlib",), "data_frame.py": ("pandas",)}
SAYS = {
    "solve.py": "plan.json",
    "plot.py": "search.png",
    "front.py": "knee.json",
    "export.py": "location.json",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with the sample trace where the scripts expect it."""
    shutil.copytree(ROOT / "examples" / "tiny_moe", tmp_path / "examples" / "tiny_moe")
    return tmp_path


def test_there_are_twelve_with_the_notebook() -> None:
    """Profile, solve, compare, plot, own solver, front, export, diff, frame, seeds, hold-out; and a notebook."""
    assert len(SCRIPTS) == 11
    assert len(NOTEBOOKS) == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.stem))
def test_at_most_fifteen_lines(script: Path) -> None:
    """What a script does fits 15 lines: docstring, blank lines and lines that only wrap are not counted."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    docstring = tree.body[0]
    assert ast.get_docstring(tree)
    assert len({node.lineno for node in statements if node is not docstring}) <= 15


@pytest.mark.slow
def test_measured_kernels_can_be_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement of a card runs on the CPU at small sizes, and its table is one that can be fitted."""
    pytest.importorskip("torch")
    script, table = ROOT / "examples" / "measure_gpu.py", tmp_path / "my.csv"
    sizes = ("device=cpu", "name=h200", "hidden=64", "width=32", "tokens=256", "repeats=2")
    monkeypatch.setattr("sys.argv", [str(script), *(f"--{size}" for size in sizes), "--output", str(table)])
    runpy.run_path(str(script), run_name="__main__")
    from placement.time.calibration.package import calibrate

    fitted = calibrate("h200", [table], source={"tables": "my.csv"})
    assert {kernel.name for kernel in fitted.kernels} == {"torch_grouped"}
    assert "bfloat16" in {kernel.dtype for kernel in fitted.kernels}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.stem))
def test_script_runs(
    script: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs from the repository's root, prints something or writes its file."""
    for module in NEEDS.get(script.name, ()):
        pytest.importorskip(module)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")  # charts need no screen
    runpy.run_path(str(script), run_name="__main__")
    if script.name in SAYS:
        assert (folder / SAYS[script.name]).stat().st_size > 100
    else:
        assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: str(path.stem))
def test_notebook_runs(notebook: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells run, and every object at the end of a cell shows itself as HTML or as a picture."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    content = nbformat.read(notebook, as_version=4)
    client = nbclient.NotebookClient(content, timeout=240, resources={"metadata": {"path": str(folder)}})
    client.execute()
    shown = [
        output.data for cell in content.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output
    ]
    assert len(shown) >= 5
    assert all("text/html" in data or "image/png" in data for data in shown)
