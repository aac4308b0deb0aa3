"""Options are made from the declarations: a field that is added is an option, and errors name it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pytest
import typer
from annotated_types import Ge, Unit, doc
from typer.testing import CliRunner

from api.cli import app
from api.cli.commands.front import front
from api.cli.commands.solve import solve
from api.cli.console import say
from api.cli.declared import Asked, asks
from api.cli.errors import flag_of, told, words
from api.cli.grouped import GROUPS, GroupedCommand
from api.cli.knobs import MOVES, knobs_of
from api.cli.outputs import Checks
from solvers.requests.request import FrontRequest, Request
from traces import InputError, Violation
from traces.support.declared import check_declared
from traces.support.errors import Violations


@dataclass(frozen=True, kw_only=True)
class Place:
    """A value with a form of its own."""

    FORM: ClassVar[str] = "X@Y"

    x: int
    y: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``x@y``."""
        try:
            x, y = text.split("@")
            return cls(x=int(x), y=int(y))
        except ValueError:
            raise InputError.of("place_form", "", f"{text!r} is not {cls.FORM}.", "Give numbers.") from None


@dataclass(frozen=True, kw_only=True)
class Inner:
    """An object inside a request."""

    new_knob: Annotated[float | None, Ge(0), Unit("s"), doc("A knob that was added today.")] = 3.5
    places: Annotated[tuple[Place, ...], doc("Where.")] = ()
    way: Annotated[Literal["fast_one", "slow_one"] | None, doc("How; see new_knob.")] = None

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "/inner", found)
        found.raise_if_any()


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A request."""

    name: Annotated[str, doc("Who.")]
    count: Annotated[int, Ge(1), doc("How many.")] = 2
    open_end: Annotated[bool, doc("Whether it has no end.")] = False
    closed: Annotated[bool | None, doc("Whether it is closed.")] = None
    inner: Inner = field(default_factory=Inner)


def run(*arguments: str) -> tuple[int, Any, str]:
    """Run a command that asks for `Outer`, and return its exit code, what it built, and its output."""
    made: list[Any] = []
    small = typer.Typer(rich_markup_mode=None)

    @small.command(cls=GroupedCommand, epilog="small trace.npz --name x")
    @asks(Outer)
    def command(trace: Path, asked: Asked) -> None:
        """Ask."""
        with Checks() as checks:
            built = asked.build(checks)
        made.append((built, asked.nested(), trace))

    result = CliRunner().invoke(small, list(arguments), terminal_width=100)
    error = result.exception
    return result.exit_code, made[0] if made else error, result.output


def test_a_field_is_an_option_with_its_help_unit_and_default() -> None:
    """Nothing but the declaration names it; fields in the help are options as well."""
    code, _, text = run("--help")
    assert code == 0
    assert "--new-knob S|none" in text
    assert "A knob that was added today.  [default: 3.5]" in text
    assert "--places X@Y" in text
    assert "--way fast-one|slow-one" in text
    assert "How; see --new-knob." in text
    assert "--closed / --no-closed" in text
    assert "--no-open-end" not in text
    assert "small trace.npz --name x" in text


def test_what_is_given_reaches_the_object_and_nothing_else_is_said() -> None:
    """Values of every kind, and which of them were said."""
    given = ("t.npz", "--name", "n", "--new-knob", "0.5", "--places", "1@2", "--places", "3@4", "--way", "FAST-one")
    code, (built, said, trace), _ = run(*given, "--no-closed", "--open-end")
    inner = Inner(new_knob=0.5, places=(Place(x=1, y=2), Place(x=3, y=4)), way="fast_one")
    assert (code, trace) == (0, Path("t.npz"))
    assert built == Outer(name="n", open_end=True, closed=False, inner=inner)
    assert said.keys() == {"name", "open_end", "closed", "inner"}
    assert said["inner"].keys() == {"new_knob", "places", "way"}
    _, (built, said, _), _ = run("t.npz", "--name", "n")
    assert (built, said) == (Outer(name="n"), {"name": "n"})


def test_none_is_a_value_where_the_field_may_be_none() -> None:
    """It differs from saying nothing, and is refused elsewhere."""
    _, (built, said, _), _ = run("t.npz", "--name", "n", "--new-knob", "None", "--way", "none")
    assert built.inner.new_knob is None
    assert said["inner"] == {"new_knob": None, "way": None}
    code, _, text = run("t.npz", "--name", "n", "--count", "none")
    assert code == 2
    assert "--count" in text


@pytest.mark.parametrize(
    "wrong",
    [("--places", "7"), ("--new-knob", "soon"), ("--way", "middle"), ("--count", "1.5"), ("--unheard", "1")],
)
def test_texts_that_can_not_be_read_are_wrong_usage(wrong: tuple[str, str]) -> None:
    """With the option."""
    code, _, text = run("t.npz", "--name", "n", *wrong)
    assert code == 2
    assert wrong[0] in text


def test_values_out_of_range_are_collected() -> None:
    """By the classes themselves."""
    _, error, _ = run("t.npz", "--name", "n", "--new-knob", "-1")
    assert isinstance(error, InputError)
    assert [item.pointer for item in error.violations] == ["/inner/new_knob"]


def test_a_required_field_is_a_required_option() -> None:
    """Unless the command has a default of its own."""
    code, _, text = run("t.npz")
    assert code == 2
    assert "--name" in text


def test_solve_and_front_have_an_option_for_every_field() -> None:
    """No field is forgotten, and names are the fields' but for a few."""
    import inspect

    for command, owner in ((solve, Request), (front, FrontRequest)):
        options = set(inspect.signature(command).parameters)
        assert {knob.name for knob in knobs_of(owner)} <= options
    names = {knob.flag for knob in knobs_of(Request)}
    assert {"--imbalance-weight", "--load-spread-weight", "--traffic-weight", "--full-slots", "--engine"} <= names
    assert {"--redundant-experts", "--baseline", "--time-limit", "--work-limit", "--stall", "--gap"} <= names
    assert {"--layer-load-cap", "--pin", "--forbid", "--group", "--option", "--topology", "--start"} <= names
    assert len({knob.name for knob in knobs_of(FrontRequest)}) == len(knobs_of(FrontRequest))


def test_help_is_in_groups_with_the_common_options_first() -> None:
    """What, machine, engine, constraints, limits, output: then an example that names an engine."""
    text = CliRunner().invoke(app, ["solve", "--help"], terminal_width=100).stdout
    places = [text.index(f"{group}:") for group in GROUPS if group != MOVES]  # those are of re-plans
    assert places == sorted(places)
    machine, engine = (text.index(f"{group}:") for group in GROUPS[1:3])
    assert machine < text.index("--topology") < engine < text.index("--engine NAME") < text.index("--traffic-weight")
    assert "moe-placement solve" in text[text.index("Example:") :]
    for name in (
        "front",
        "replan",
        "evaluate",
        "compare",
        "export",
        "check",
        "convert",
        "profile",
        "synthetic",
        "demo",
    ):
        shown = CliRunner().invoke(app, [name, "--help"], terminal_width=100).stdout
        assert f"moe-placement {name}" in shown[shown.index("Example:") :]


@pytest.mark.parametrize(
    ("pointer", "flag"),
    [
        ("/constraints/load_cap", "--load-cap"),
        ("/objective/dedup", "--dedup"),
        ("/redundant_experts", "--redundant-experts"),
        ("/limits/time_s", "--time-limit"),
        ("/constraints/pins/0/expert", "--pin (no. 1, expert)"),
        ("/options/num_groups", "--option (num_groups)"),
        ("/num_experts", "--num-experts"),
        ("/layer_ids", "--layer-ids"),
        ("/model", "--model"),
        ("/points", "--points"),
        ("/physical_to_logical_map/3", None),
        ("trace.npz#layer_ids", None),
        ("/none/plan.json", None),
        ("/seeds/none.npz#row 3, layer 1", None),
    ],
)
def test_pointers_are_told_as_options(pointer: str, flag: str | None) -> None:
    """Those into a request; those into files stay."""
    assert flag_of(pointer) == flag


def test_remedies_name_options() -> None:
    """Parameters in backticks, with `=`, with their value, and bare where the error is about an option."""
    assert words("Give `num_experts` or layer_ids=.") == "Give --num-experts or --layer-ids."
    assert words("Use execution 'context_coherent'.") == "Use --execution context-coherent."
    assert words("Give expert_bytes, or load_cap.", bare=True) == "Give --expert-bytes, or --load-cap."
    assert words("Add num_experts to the header.") == "Add num_experts to the header."
    assert words("Run `moe-placement profile a_b/load_cap.npz`.", bare=True).endswith("a_b/load_cap.npz`.")
    violation = Violation(code="c", pointer="/slots_per_gpu", detail="It is 0.", remedy="Give redundant_experts.")
    assert told(violation) == "--slots-per-gpu: It is 0. [c]\n       Give --redundant-experts."


def test_notes_name_options_and_results_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """What the library says beside a result is told like its errors."""
    say("It is not checked (`model`); give `layer_ids`, or dedup='node'.", "note")
    say("`drop_dummy_rows` leaves them out.", "warning")
    say("`model`")
    assert capsys.readouterr().err.splitlines() == [
        "note: It is not checked (--model); give --layer-ids, or --dedup node.",
        "warning: --drop-dummy leaves them out.",
        "`model`",
    ]


def test_json_keeps_the_pointers(tmp_path: Path) -> None:
    """Programs read them; people read options."""
    result = CliRunner().invoke(app, ["solve", str(tmp_path / "t.npz"), "--topology", "1x4", "--gap", "2", "--json"])
    pointers = [item["pointer"] for item in json.loads(result.stdout)["violations"]]
    assert "/limits/gap" in pointers
    assert "error: --gap: " in result.stderr


def test_help_loads_no_heavy_library() -> None:
    """The declarations are read without loading what they name."""
    code = (
        "import sys; from typer.testing import CliRunner; from api.cli import app;"
        "shown = CliRunner().invoke(app, ['solve', '--help']).stdout; assert '--load-cap' in shown, shown;"
        "heavy = {'numpy', 'scipy', 'numba', 'fastapi', 'sqlalchemy', 'rich', 'ortools'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
