"""Models by name: the fields of their configs that say layers, experts and sizes, each with its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from traces.model.config import ModelLayout, layout_from_config, load_model_config, read_config
from traces.model.shape import ModelShape, shape_from_config
from traces.support.errors import InputError
from traces.support.kinds import checked

__all__ = ["Model", "layout_of", "load_model", "preset_names"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as planning and timing need it.

    Attributes
    ----------
    name : str
        The preset, or the path of the config.
    source : str
        Where its numbers are from.
    layout : ModelLayout
        Which layers are MoE layers.
    shape : ModelShape
        How large its experts and its attention are.
    """

    name: str
    source: str
    layout: ModelLayout
    shape: ModelShape


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    content: Mapping[str, Mapping[str, Any]] = json.loads(
        files("traces.model").joinpath("presets.json").read_text(encoding="utf-8")
    )
    return content


def preset_names() -> tuple[str, ...]:
    """Return the names that `load_model` knows."""
    return tuple(_presets())


def layout_of(name: str | Path) -> ModelLayout:
    """Return the layers of a model by its name, or by the path of its ``config.json``.

    Raises
    ------
    InputError
        If it is neither, or if the config does not say its layers.
    """
    path = Path(name)
    return load_model_config(path) if path.exists() or path.suffix == ".json" else load_model(name).layout


@checked
def load_model(name: str | Path) -> Model:
    """Return a model by the name of a preset, or by the path of its ``config.json``.

    Parameters
    ----------
    name : str or path
        Such as ``deepseek-v3``; a path that exists goes before a preset of the same name.

    Raises
    ------
    InputError
        If it is neither, or if the config does not say what is needed.
    """
    text = str(name)
    if Path(text).is_file():
        content = read_config(text)
        return Model(
            name=text,
            source=text,
            layout=load_model_config(text),
            shape=shape_from_config(content, f"{text}#"),
        )
    known = _presets()
    if text not in known:
        close = get_close_matches(text, known, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        detail = f"There is no file {text!r:.80} and no preset of that name.{guess}"
        remedy = f"Give the path of a config.json, or one of {', '.join(known)}."
        raise InputError.of("unknown_model", "/model", detail, remedy)
    entry = known[text]
    place = f"preset {text}#"
    return Model(
        name=text,
        source=str(entry["source"]),
        layout=layout_from_config(entry["config"], place),
        shape=shape_from_config(entry["config"], place),
    )
