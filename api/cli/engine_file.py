"""The file that an engine loads, written beside a plan that was made for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import say, write

if TYPE_CHECKING:
    from placement import Plan
    from placement.engines import Engine
    from traces import ModelLayout

__all__ = ["EngineFile"]


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """An engine's file beside a plan.

    Attributes
    ----------
    engine : Engine
    plan : Path
        The plan's file.
    model : ModelLayout or None
    config : str or None
        The model's config.json, as it was named.
    """

    engine: Engine
    plan: Path
    model: ModelLayout | None
    config: str | None

    @classmethod
    def beside(cls, plan: Path, engine: str | None, model: ModelLayout | None, config: str | None) -> EngineFile | None:
        """Return the file for a plan; None where no engine is named, or it loads none."""
        from placement.engines import engine_of

        found = None if engine is None else engine_of(engine).engine
        if found is None or found.export is None:
            return None
        return cls(engine=found, plan=plan, model=model, config=config)

    @property
    def path(self) -> Path:
        """Where it goes: ``plan.json`` becomes ``plan.sglang.json``."""
        from placement.exports import export_named

        assert self.engine.export is not None
        stem = self.plan.stem if self.plan.suffix else self.plan.name
        return self.plan.with_name(f"{stem}.{self.engine.name}{export_named(self.engine.export).suffix}")

    def write(self, plan: Plan) -> dict[str, Any]:
        """Write the file, if it can be made, and return what to tell of it.

        Returns
        -------
        dict
            ``file`` and ``load``, the options that have the engine load it; both None where it is not written. Then
            ``missing`` says why, and how to get it.
        """
        from placement.exports import Context, export_named
        from traces import InputError
        from traces.support.atomic import atomic_write

        assert self.engine.export is not None
        form, path = export_named(self.engine.export), self.path
        context = Context(model=self.model, gpus_per_node=plan.gpus_per_node)
        try:
            exported = form.write(plan, context)
        except InputError as error:
            return {"file": None, "load": None, "missing": self._missing(error), "format": form.name}
        with atomic_write(path) as file:
            file.write(exported.content)
        for note in exported.notes:
            say(note, "note")
        return {"file": str(path), "load": form.load_with(str(path), plan), "missing": None, "format": form.name}

    def _missing(self, error: Any) -> str:
        """Say why the file is not written, and how to get it, in one sentence."""
        from placement.exports import export_named

        config = self.config or "config.json"
        assert self.engine.export is not None
        own = export_named(self.engine.name).name == self.engine.export
        name = self.engine.name if own else self.engine.export
        command = f"moe-placement export {self.plan} --engine {name} -o {self.path} --model {config}"
        if self.model is None and any(item.code == "model_unknown" for item in error.violations):
            why = "needs the model's layers, which neither the trace nor --model tells"
        else:
            from api.cli.errors import words

            why = "is refused: " + " ".join(f"{words(item.detail)} {words(item.remedy)}" for item in error.violations)
            why = why.rstrip(". ")
        return f"The file for {self.engine.title} {why}; get it later with `{command}`."

    def tell(self, told: dict[str, Any]) -> None:
        """Print what `write` returned: what was written and how it is loaded, or what is missing."""
        if told["file"] is None:
            say(told["missing"], "note")
            return
        write(f"{told['file']} written for {self.engine.title} {self.engine.version} ({told['format']}).")
        write(f"Load it with: {told['load']}")
