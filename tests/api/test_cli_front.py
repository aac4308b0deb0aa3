"""``moe-placement front``: the table, the document, the files."""

import importlib.util
import inspect
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from api.cli.commands.front import front
from api.cli.commands.solve import solve
from api.cli.knobs import knobs_of
from placement import Plan
from solvers import Timed
from tests.builders.cli import command, document
from traces import save
from traces.synthetic import Synthetic, generate

pytestmark = pytest.mark.usefixtures("elsewhere")

PARAMS = Synthetic(num_layers=3, num_experts=16, top_k=2, num_tokens=1024, tokens_per_sequence=32)
WORK = ("--work-limit", 30_000, "--points", 4)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace file with planted affinity."""
    path = tmp_path_factory.mktemp("front") / "trace.npz"
    save(generate(PARAMS), path)
    return path


def test_table_has_a_row_for_each_point_and_marks_knee_and_pick(trace: Path) -> None:
    """Fitted and held-out figures stand side by side."""
    result = command("front", trace, "--topology", "2x2", *WORK)
    assert result.exit_code == 0, result.stderr
    assert "held out" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit() and "plans after" not in line]
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    assert sum("knee" in row for row in rows) == sum("picked" in row for row in rows) == 1


def test_document_agrees_with_the_files(trace: Path, tmp_path: Path) -> None:
    """Every point's plan is written, and -o gets the picked one."""
    plans, path = tmp_path / "plans", tmp_path / "plan.json"
    told = document("front", trace, "--topology", "2x2", *WORK, "--out-dir", plans, "-o", path, "--pick", "cap=1.3")
    points = told["points"]
    assert sorted(item.name for item in plans.iterdir()) == [f"point-{item:02d}.json" for item in range(len(points))]
    for number, point in enumerate(points):
        assert Plan.load(plans / f"point-{number:02d}.json").score == pytest.approx(point["score"])
        assert point["held_out"]["tokens"] == point["fit"]["tokens"] == 512
    allowed = [item for item, point in enumerate(points) if point["imbalance"] <= 1.3]
    assert told["picked"] == allowed[-1]
    assert Plan.load(path) == Plan.load(plans / f"point-{told['picked']:02d}.json")
    assert Plan.load(path).provenance["front"]["against"] == "imbalance"


def test_plan_of_a_point_can_be_evaluated(trace: Path, tmp_path: Path) -> None:
    """It names its topology and how tokens travel, as any plan does."""
    path = tmp_path / "plan.json"
    given = ("--execution", "dispatch", "--dedup", "node", "--slots-per-gpu", 5)
    told = document("front", trace, "--topology", "2x2", *WORK, *given, "--hold-out", 0, "-o", path)
    replayed = document("evaluate", path, trace)
    best = told["points"][told["picked"]]["fit"]
    assert told["picked"] == told["knee"]
    assert replayed["remote_nodes"] == pytest.approx(best["remote_nodes"])


def test_replicas_and_moves_show_bytes(trace: Path, tmp_path: Path) -> None:
    """Where the size of an expert is given."""
    path = tmp_path / "plan.json"
    assert command("solve", trace, "--topology", "2x2", "--solver", "eplb", "-o", path).exit_code == 0
    given = ("--expert-bytes", 1000, "--topology", "2x2", *WORK)
    moved = document("front", trace, *given, "--against", "bytes-moved", "--start", path)
    assert moved["points"][0]["moved_bytes"] == 0
    assert all(point["moved_bytes"] == 1000 * point["moved_experts"] for point in moved["points"])
    copied = document("front", trace, *given, "--against", "replicas", "--slots-per-gpu", 6)
    assert copied["points"][0]["slots_per_gpu"] == 4
    assert all(point["extra_bytes"] == 3000 * point["redundant_experts"] for point in copied["points"])


def test_front_takes_every_option_of_solve() -> None:
    """All but the report, which is on one plan, and time, which weighs nothing; three of its own besides the files."""
    theirs, own = (set(inspect.signature(item).parameters) for item in (solve, front))
    assert theirs - own == {"report"} | {knob.name for knob in knobs_of(Timed)} - {"model"}
    assert own - theirs == {"against", "points", "num_groups", "pick", "out_dir", "plot"}


def test_constraints_and_limits_reach_every_point(trace: Path, tmp_path: Path) -> None:
    """What was asked for is kept by the plans of all points, and recorded in them."""
    given: tuple[object, ...] = ("--slots-per-gpu", 6, "--extra-bytes", 7999, "--expert-bytes", 1000)
    given += ("--pin", "3@1@2", "--forbid", "4@0", "--group", "5,6", "--layer-load-cap", "1.9@2")
    given += ("--load-cap", 2.5, "--load-quantile", 0.8, "--load-groups", "sequences")
    given += (
        "--execution",
        "dispatch",
        "--activated-weight",
        0.1,
        "--decode-batch",
        64,
        "--gap",
        0.001,
        "--stall",
        600,
    )
    short = ("--work-limit", 6000, "--points", 3)
    told = document("front", trace, "--topology", "2x2", *short, *given, "--out-dir", tmp_path / "plans")
    plans = [Plan.load(path) for path in sorted((tmp_path / "plans").iterdir())]
    assert len(plans) > 1
    for plan, point in zip(plans, told["points"], strict=True):
        assert (plan.physical_to_logical_map >= 0).sum() <= plan.num_layers * plan.num_experts + 7
        assert point["extra_bytes"] == 7000
        assert point["held_out"]["activated_experts"] > 1
        assert plan.replicas_on_gpu[2, 3, 1] == 1
        assert not plan.replicas_on_gpu[:, 4, 0].any()
        nodes = plan.replicas_on_gpu[:, [5, 6]].reshape(3, 2, 2, 2).sum(axis=3) > 0
        assert (nodes.any(axis=1).sum(axis=1) == 1).all()
        recorded = plan.provenance["constraints"]
        assert recorded["layer_load_caps"] == [{"layer_id": 2, "load_cap": 1.9}]
        assert (recorded["load_quantile"], recorded["load_groups"]) == (0.8, "sequences")
        assert plan.provenance["objective"]["activated_weight"] == 0.1
        assert plan.provenance["objective"]["decode_batch"] == 64
        assert (plan.provenance["limits"]["gap"], plan.provenance["limits"]["stall_s"]) == (0.001, 600)


def test_activated_experts_have_a_column_where_they_count(trace: Path) -> None:
    """On held-out tokens; without a weight there is none."""
    given = ("front", trace, "--topology", "2x2", "--execution", "dispatch", "--work-limit", 3000, "--points", 3)
    assert "activated_experts" in command(*given, "--activated-weight", 0.1).stdout
    assert "activated" not in command(*given).stdout


def test_svg_chart_is_a_picture_of_its_own(trace: Path, tmp_path: Path) -> None:
    """Well-formed, with its name space and style, a dot for each point and line."""
    path = tmp_path / "front.svg"
    told = document("front", trace, "--topology", "2x2", *WORK, "--plot", path)
    root = ET.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert root.find(f"{space}style") is not None
    assert len(root.findall(f"{space}circle")) == 2 * len(told["points"])


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is there")
def test_png_chart_without_matplotlib_is_refused_before_the_search(trace: Path, tmp_path: Path) -> None:
    """With a way out."""
    result = command("front", trace, "--topology", "2x2", "--time-limit", "100", "--plot", tmp_path / "front.png")
    assert result.exit_code == 1
    assert ".svg" in result.stderr


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not there")
def test_png_chart(trace: Path, tmp_path: Path) -> None:
    """A PNG is written."""
    path = tmp_path / "front.png"
    assert command("front", trace, "--topology", "2x2", *WORK, "--plot", path).exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--pick", "elbow"), 2, "neither knee nor cap"),
        (("--against", "time"), 2, "not one of"),
        (("--points", 2), 1, "at least 3"),
        (("--against", "bytes-moved"), 1, "--start: Bytes moved are counted from the plan that runs now"),
        (
            ("--extra-bytes", 10),
            1,
            "--extra-bytes: A budget of replicas in bytes needs the size of an expert. [no_expert_bytes] Give --exp",
        ),
        (("--extra-replicas", 2, "--extra-bytes", 10, "--expert-bytes", 10), 1, "Leave one of the two out"),
        (("--extra-replicas", -1), 1, "--extra-replicas:"),
        (("--extra-replicas", 3, "--against", "replicas", "--solver", "eplb"), 1, "with 5 slots per GPU"),
        (("--pin", "3"), 2, "EXPERT@GPU"),
        (("--plot", "front.gif"), 1, ".svg"),
        (("--pick", "cap=1.000001", "--work-limit", 100), 3, "the least is"),
    ],
)
def test_what_does_not_fit_is_refused(trace: Path, arguments: tuple[object, ...], code: int, words: str) -> None:
    """With a sentence on what would."""
    result = command("front", trace, "--topology", "2x2", *arguments)
    assert result.exit_code == code
    assert words in " ".join(result.stderr.split())
