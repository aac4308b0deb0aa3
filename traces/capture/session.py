"""`record`: hooks on a model's routers while a block runs, and a trace at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from traces.capture.recording import Recording, compiled
from traces.capture.routers import find_routers
from traces.formats.parquet import import_pyarrow
from traces.formats.writers import WRITERS
from traces.support.atomic import check_writable
from traces.support.errors import InputError

__all__ = ["record"]


@contextmanager
def record(
    model: Any,
    path: str | Path | None = None,
    *,
    routers: Iterable[str] | Mapping[str, int] | None = None,
    choose: Callable[[Any], Any] | None = None,
    num_experts: int | None = None,
    weights: bool = True,
    compress: bool = True,
) -> Iterator[Recording]:
    """Record which experts a model chooses while the block runs.

    Hooks on the routers take the indices that the model itself uses. Padding is left out, as the attention mask of each
    call tells it; so are the tokens that `generate` feeds for rows that have ended. Every row of a batch is a sequence,
    and keeps its `seq_id` as long as calls go on with the same cache; `token_pos` counts its tokens without padding. A
    call that starts a sequence, or adds several tokens to one, is prefill, one that adds a single token is decode.
    Tokens are kept on disk as they come, so memory does not grow with the recording.

    Parameters
    ----------
    model : torch.nn.Module
        The module that is called in the block, or whose ``generate`` is: a causal language model of transformers 5, or
        any other module with routers.
    path : path, optional
        File to write at the end of the block, whole or not at all: ``.npz``, ``.parquet`` or ``.jsonl``. Nothing is
        written where the block ends with an error. Where writing fails, `Recording.trace` still has the tokens.
    routers : names or patterns of modules, or a mapping from names to model layers, optional
        What to hook; by default the routers of transformers' models, found by their class. The first number in a name
        is its layer.
    choose : callable, optional
        From a router's output to the indices (tokens, K), or to (indices, weights). By default, for routers that are
        named, the only integer tensor in the output.
    num_experts : int, optional
        E, where neither routers nor experts tell.
    weights : bool
        Whether to record gate weights.
    compress : bool
        As in `traces.save`.

    Yields
    ------
    Recording
        Its `trace` can be read after the block.

    Raises
    ------
    InputError
        If no router is found, layers differ in experts or in experts per token, the model is compiled, padding or
        sequences can't be told (masks for pairs of positions, packed rows, beam search, speculative decoding), or
        nothing was recorded. Hooks are removed in any case.

    Examples
    --------
    >>> with record(model, "trace.parquet") as recording:           # doctest: +SKIP
    ...     model.generate(**tokenizer(prompts, padding=True, return_tensors="pt"), max_new_tokens=64)
    >>> recording.trace.num_tokens                                   # doctest: +SKIP
    """
    target = None if path is None else _checked_target(path)
    _check_model(model)
    recording = Recording(
        model, find_routers(model, routers, choose, num_experts), weights, None if target is None else target.parent
    )
    try:
        with ExitStack() as stack:
            recording.hook(stack)
            yield recording
    except BaseException:
        recording.discard()
        raise
    recording.finish(target, compress)


def _checked_target(path: str | Path) -> Path:
    target = Path(path)
    if target.suffix.lower() not in WRITERS:
        raise InputError.of(
            "unknown_format",
            target.name,
            f"Can't tell the format from {target.suffix!r}.",
            f"Use one of {', '.join(WRITERS)}.",
        )
    if target.suffix.lower() == ".parquet":
        import_pyarrow()
    check_writable(target)
    return target


def _check_model(model: Any) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise compiled(name or "model")
    if type(model).__name__ == "DataParallel":
        raise InputError.of(
            "data_parallel",
            "/model",
            "DataParallel runs copies of the model, which have no hooks.",
            "Give model.module.",
        )
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise InputError.of(
            "encoder_decoder",
            "/model",
            "Encoder and decoder have tokens and padding of their own, which one trace can't hold.",
            "Record a decoder-only model.",
        )
