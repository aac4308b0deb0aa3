"""The engines by name, and how a name is read. To add one: write a module with an `Engine`, and list it here."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from placement.engines import deepspeed, exflow, megatron, sglang, tensorrt_llm, vllm, vllm_ascend
from placement.engines.engine import Engine, EngineChoice
from traces.support.errors import InputError

__all__ = ["ENGINES", "engine_of", "engine_of_format"]

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            sglang.ENGINE,
            vllm.ENGINE,
            tensorrt_llm.ENGINE,
            vllm_ascend.ENGINE,
            vllm.HYGON,
            megatron.ENGINE,
            deepspeed.ENGINE,
            exflow.ENGINE,
        )
    }
)


def engine_of(text: str) -> EngineChoice:
    """Return the engine that a text names, with one of its dispatch algorithms.

    Parameters
    ----------
    text : str
        An engine, ``sglang``, or an engine and one of its algorithms, ``sglang:static``. Without an algorithm, it is
        the engine's default one.

    Raises
    ------
    InputError
        If there is no such engine (code ``unknown_engine``), or it has no such algorithm (``unknown_algorithm``); with
        the choices.
    """
    name, colon, algorithm = text.partition(":")
    engine = next((engine for engine in ENGINES.values() if engine.named(name)), None)
    if engine is None:
        near = get_close_matches(name.strip().lower(), ENGINES, n=1)
        guess = f"Did you mean {near[0]}? " if near else ""
        detail = f"There is no engine {name.strip()!r:.60}."
        raise InputError.of("unknown_engine", "/engine", detail, f"{guess}Engines are {', '.join(ENGINES)}.")
    if not colon:
        return EngineChoice(engine=engine, algorithm=next(iter(engine.algorithms), None))
    wanted = algorithm.strip().lower()
    if wanted in engine.algorithms:
        return EngineChoice(engine=engine, algorithm=wanted)
    if not engine.has_replicas:
        detail = f"{engine.title} has no redundant experts, so it has no algorithm that chooses between replicas."
        raise InputError.of("unknown_algorithm", "/engine", detail, f"Write {engine.name}.")
    detail = f"{engine.title} {engine.version} has no dispatch algorithm {algorithm.strip()!r:.60}."
    choices = ", ".join(f"{engine.name}:{name}" for name in engine.algorithms)
    raise InputError.of("unknown_algorithm", "/engine", detail, f"Choose {choices}, or {engine.name} for its default.")


def engine_of_format(trace_format: str) -> Engine | None:
    """Return the engine that writes traces of a format; None if the format says nothing about it.

    Parameters
    ----------
    trace_format : str
        Name of a reader of `traces`, such as ``sglang_stat``. Formats that anything may write, such as ``npz``, and
        recordings of models outside of an engine (``transformers``) belong to none.
    """
    return next((engine for engine in ENGINES.values() if trace_format in engine.trace_formats), None)
