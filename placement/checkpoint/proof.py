"""Two checkpoints compared by what their models compute."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from traces import InputError

__all__ = ["check_same", "logits_of", "proof_needs"]

TOLERANCE = 1e-5  # of the largest logit: the experts of a token are summed in another order
SEQUENCES, TOKENS = 4, 64
INSTALL = 'Run: pip install "moe-placement[capture]". Or leave `prove` out.'


def proof_needs(config: Any, place: str) -> None:
    """Check that a model of this config can be run here.

    Raises
    ------
    InputError
        If torch or transformers is missing, or transformers has no class of this name: code that comes with a
        checkpoint is not run.
    """
    for name in ("torch", "transformers"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError.of("no_capture_extra", "/prove", f"A proof needs {name}.", INSTALL) from None
    _class(config, place)


def check_same(before: Path, after: Path, config: Any) -> float:
    """Run both models on the same random tokens; return the largest difference of two logits, over the largest logit.

    One model is in memory at a time, in float32.

    Parameters
    ----------
    before, after : Path
        Folders of checkpoints.
    config : object
        Content of their ``config.json``.

    Raises
    ------
    InputError
        If the difference is above 1e-5, or the models don't run or can't be compared.
    """
    torch: Any = importlib.import_module("torch")
    first, second = logits_of(before, config), logits_of(after, config)
    largest = float(first.abs().max())
    if not torch.isfinite(first).all() or largest == 0:
        detail = "The model's logits on random tokens are not finite, or all zero: they prove nothing."
        raise InputError.of("no_proof", str(before), detail, "Leave `prove` out, and compare the models yourself.")
    difference = float((first - second).abs().max()) / largest
    if not difference <= TOLERANCE:
        detail = f"The renumbered model computes something else: logits differ by {difference:.1e} of the largest."
        remedy = "Nothing was written. This version has no rule for this model; please report its model type."
        raise InputError.of("model_changed", str(before), detail, remedy)
    return difference


def _class(config: Any, place: str) -> Any:
    transformers: Any = importlib.import_module("transformers")
    names = config.get("architectures") if isinstance(config, dict) else None
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not hasattr(found, "from_pretrained"):
        detail = f"transformers {transformers.__version__} has no class {name!r:.60}, as which the model could be run."
        raise InputError.of("no_proof", f"{place}#/architectures", detail, "Leave `prove` out.")
    return found


def logits_of(folder: Path, config: Any) -> Any:
    """Return the logits of a checkpoint's model on random tokens, or its last hidden states if it has no head.

    Raises
    ------
    InputError
        If transformers can't load or run it.
    """
    torch: Any = importlib.import_module("torch")
    kind = _class(config, str(folder / "config.json"))
    try:
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        unread = sorted(report["missing_keys"]) + sorted(map(str, report.get("mismatched_keys", ())))
        if unread:
            raise ValueError(f"the checkpoint has no {unread[0]}")
        text = model.config.get_text_config()
        tokens = torch.randint(text.vocab_size, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            answer = model.eval()(input_ids=tokens, use_cache=False)
        return next(answer[name] for name in ("logits", "last_hidden_state") if name in answer).float()
    except Exception as error:  # whatever code of a model says of a checkpoint that it can't load or run
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        detail = f"The model could not be run by transformers: {reason}"
        raise InputError.of("no_proof", str(folder), detail, "Leave `prove` out.") from error
