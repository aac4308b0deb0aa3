"""The commands, and what becomes of their errors: exit code 1 bad input, 2 usage, 3 no plan."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api.cli.commands.advise import advise
from api.cli.commands.backup import backup, restore
from api.cli.commands.calibrate import calibrate
from api.cli.commands.catalogue import formats, solvers
from api.cli.commands.check import check
from api.cli.commands.compare import compare
from api.cli.commands.convert import convert
from api.cli.commands.demo import demo
from api.cli.commands.evaluate import evaluate
from api.cli.commands.exports import export
from api.cli.commands.front import front
from api.cli.commands.group import group
from api.cli.commands.key import key
from api.cli.commands.mixture import mixture
from api.cli.commands.profile import profile
from api.cli.commands.renumber import renumber
from api.cli.commands.replan import replan
from api.cli.commands.residency import residency
from api.cli.commands.serve import serve
from api.cli.commands.simulate import simulate
from api.cli.commands.solve import solve
from api.cli.commands.survive import survive
from api.cli.commands.synthetic import synthetic
from api.cli.commands.topologies import topologies
from api.cli.console import BAD_INPUT, INTERRUPTED, NO_PLAN, error_document, print_json, say, wants_json
from api.cli.grouped import GroupedCommand
from api.cli.stdout import OutputError, stdout_told

__all__ = ["app", "main"]

# What the extra `service` installs, as modules; the other commands do without.
SERVICE = {
    *("alembic", "fastapi", "prometheus_client", "pydantic", "pydantic_settings", "sqlalchemy", "starlette"),
    *("structlog", "uvicorn"),
}


class _Commands(TyperGroup):
    """Turns the library's errors into messages and exit codes."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer passes its own
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("Stopped.", "note")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            code = _report(_explained(error, ctx.invoked_subcommand), as_json=wants_json(ctx))
            if code is None:
                raise
            raise typer.Exit(code) from None


app = typer.Typer(
    cls=_Commands,
    name="moe-placement",
    help="Place the experts of Mixture-of-Experts models on GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from moe_placement.distribution import version

        typer.echo(version())
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 ok, 1 bad input, 2 wrong usage, 3 no plan. New here? Run: moe-placement demo")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Place the experts of Mixture-of-Experts models on GPUs: fewer tokens across the network, no GPU overloaded."""


EXAMPLES = {
    "profile": "moe-placement profile trace.npz -o profile.npz",
    "solve": "moe-placement solve recorded --engine sglang --topology 2x8 --model config.json -o plan.json",
    "front": "moe-placement front trace.npz --engine vllm --topology 2x8 --pick cap=1.1 -o plan.json",
    "advise": "moe-placement advise trace.npz --engine sglang --machine h200:4x8 --model deepseek-v3 --phase prefill",
    "mixture": "moe-placement mixture code.npz chat.npz law.npz --topology 2x8 --over worst -o plan.json",
    "group": "moe-placement group trace.npz --topology 2x8 -o plan.json",
    "survive": "moe-placement survive plan.json trace.npz --survive nodes=1 --prepare without",
    "simulate": "moe-placement simulate dumps/*.pt --topology 4x8 --redundant-experts 32 --model deepseek-v3",
    "replan": "moe-placement replan running.json today.npz --machine h200:4x8 --model deepseek-v3 --horizon 3600",
    "residency": "moe-placement residency trace.npz --resident .5 --machine h200:1x1 --model deepseek-v2-lite",
    "evaluate": "moe-placement evaluate plan.json trace.npz --part held-out",
    "compare": "moe-placement compare plan.json eplb.json trace.npz",
    "export": "moe-placement export plan.json --engine sglang --model config.json -o location.json",
    "check": "moe-placement check location.json --engine sglang --model config.json --topology 2x8",
    "convert": "moe-placement convert location.json map.yaml --to trtllm --model config.json --topology 2x8",
    "renumber": "moe-placement renumber plan.json MODEL -o renumbered",
    "solvers": "moe-placement solvers --json",
    "formats": "moe-placement formats",
    "calibrate": "moe-placement calibrate --check moe_perf.parquet --json",
    "synthetic": "moe-placement synthetic --layers 24 --experts 64 --top-k 4 -o trace.npz",
    "demo": "moe-placement demo",
    "serve": "moe-placement serve --port 8000",
    "backup": "moe-placement backup backup.tar",
    "restore": "moe-placement restore backup.tar",
}
COMMANDS = (
    *(profile, solve, mixture, group, advise, replan, simulate, front, evaluate, compare, survive, residency),
    *(export, check, convert, renumber),
    *(solvers, formats, synthetic, calibrate, demo, serve),
    *(backup, restore),
)
for command in COMMANDS:
    app.command(cls=GroupedCommand, epilog=EXAMPLES[command.__name__])(command)
app.add_typer(topologies, name="topologies")
app.add_typer(key, name="key")


def main() -> None:
    """Entry point of the console script."""
    try:
        with stdout_told():
            app()
    except KeyboardInterrupt:  # before or after the command itself
        say("Stopped.", "note")
        sys.exit(INTERRUPTED)
    except OutputError as error:
        say(f"Can't write the output: {error.strerror}.", "error")
        sys.exit(BAD_INPUT)


def _explained(error: Exception, command: str | None) -> Exception:
    """Return what to tell instead of a missing module, where that is because the service is not installed."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name is None or name.partition(".")[0] not in SERVICE:
        return error
    from traces import InputError

    detail = f"This command is a part of the service, which is not installed: there is no {name}."
    remedy = 'Run: pip install "moe-placement[service]"'
    return InputError.of("no_service_extra", f"moe-placement {command}", detail, remedy)


def _report(error: Exception, *, as_json: bool) -> int | None:
    """Report an error of the library and return the exit code; None for other errors, which are faults of ours."""
    # Looked up, not imported: when one of these was raised, its module is there, and importing it takes long.
    traces, plans = sys.modules.get("traces.support.errors"), sys.modules.get("solvers.plans")
    if traces is not None and isinstance(error, traces.InputError):
        from api.cli.errors import told

        for violation in error.violations:
            say(told(violation), "error")
        if as_json:
            print_json(error_document("bad_input", error.violations))
        return BAD_INPUT
    if plans is not None and isinstance(error, plans.NoPlanError):
        say(str(error), "no plan")
        if as_json:
            from dataclasses import asdict

            print_json(error_document("no_plan", termination=asdict(error.termination)))
        return NO_PLAN
    return None
