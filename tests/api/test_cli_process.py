"""The command line as a process of its own: start-up, streams, signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from placement import Plan
from traces import save
from traces.synthetic import Synthetic, generate

COMMAND = (sys.executable, "-c", "from api.cli import main; main()")
# The same, and a line on stderr with every map of eight layers that a search was offered; loops are warmed up on fewer.
TELLING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, shells start what ignores it
from solvers.searching.search import Search

def told(self, table, *arguments):
    offered = offer(self, table, *arguments)
    if len(table) == 8:
        print("offered", file=sys.stderr, flush=True)
    return offered

offer, Search.offer = Search.offer, told
from api.cli import main
main()
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace file."""
    path = tmp_path_factory.mktemp("process") / "trace.npz"
    save(generate(Synthetic(num_layers=8, num_experts=32, top_k=2, num_tokens=4096, tokens_per_sequence=64)), path)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with TemporaryDirectory() as folder:  # plans without a name are written where the command runs
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=False,
        )


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """What takes long to import is imported by the commands that need it."""
    code = (
        "import sys, api.cli; heavy = {'numpy', 'scipy', 'numba', 'fastapi', 'sqlalchemy', 'rich', 'pulp', 'ortools'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_stdout_is_one_json_document_and_progress_is_not_shown_in_a_pipe(trace: Path) -> None:
    """Messages go to stderr, and no terminal codes anywhere."""
    done = run("solve", trace, "--topology", "1x4", "--solver", "annealing", "--work-limit", 10_000, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["score"] > 0
    assert "\x1b" not in done.stdout + done.stderr


def test_bad_input_ends_with_code_1_and_no_traceback(tmp_path: Path) -> None:
    """As in the same process."""
    done = run("solve", tmp_path / "none.npz", "--topology", "1x4")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "[file_missing]" in done.stderr


def test_wrong_usage_ends_with_code_2() -> None:
    """A missing option is told with the usage."""
    done = run("solve", "trace.npz")
    assert done.returncode == 2
    assert "--topology" in done.stderr


def test_ctrl_c_keeps_the_best_plan_so_far(trace: Path, tmp_path: Path) -> None:
    """The plan is written, with a note, and the command succeeds."""
    path = tmp_path / "plan.json"
    search = ("--topology", "1x4", "--solver", "annealing", "--workers", 1)
    solve = ("solve", trace, *search, "-o", path, "--json", "--time-limit")
    run(*solve, "0.1")  # so that loops are compiled
    path.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", TELLING, *map(str, solve), "120"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        assert any(line == "offered\n" for line in process.stderr)  # ends with the first
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["termination"]["limit"] == "cancelled"
    assert Plan.load(path).score == json.loads(out)["score"]
    assert "stopped by hand" in err


def test_a_reader_that_stops_reading_causes_no_traceback() -> None:
    """As in `moe-placement topologies | head -1`."""
    line = f'"{sys.executable}" -c "from api.cli import main; main()" solve --help | head -1'
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("Usage")
