"""Captures of a family of transformers beside what its experts were called with: `python -m tests.engines.captures`."""

from __future__ import annotations

import importlib
import logging
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.engines.tiny_models import VOCABULARY, code_families, expert_modules, tiny_of
from traces import InputError
from traces.capture import record

__all__ = ["MODES", "Outcome", "outcome"]

LENGTHS, WIDTH, STEPS = (7, 4, 1), 7, 4
MODES = ("forward", "generate", "past_key_values", "cache")
"""One call; generate(); and a call with steps by hand, with the cache under either keyword."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a capture.

    Attributes
    ----------
    model : str
        Class of the model.
    result : str
        ``exact``, ``refused``, ``wrong``, or ``none`` where the model has no such mode.
    detail : str
        Code of the refusal, or what differs.
    """

    model: str
    result: str
    detail: str = ""


@lru_cache(maxsize=1)
def model_of(family: str) -> Any:
    """Return the family's tiny model, the same for all modes."""
    return tiny_of(family)


class Spy:
    """Keeps what the experts of each layer are called with, without hooks: their `forward` is replaced."""

    def __init__(self, model: Any) -> None:
        self.calls: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        self.modules = list(expert_modules(model))
        for name, module in self.modules:
            kind = type(module).__name__
            see = self.see_llama if kind == "Llama4TextExperts" else self.see
            if kind == "JetMoeMoE":
                see = self.see_jetmoe
            module.forward = self.replaced(name, module, see)

    def leave(self) -> None:
        """Give the modules their own `forward` back."""
        for _, module in self.modules:
            del module.forward

    def replaced(self, name: str, module: Any, see: Any) -> Any:
        """Return a `forward` that looks first."""
        inner = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            see(name, module, args, kwargs)
            return inner(*args, **kwargs)

        return forward

    def see(self, name: str, module: Any, args: Any, kwargs: Any) -> None:
        """Keep the indices that the experts are given."""
        given = kwargs["top_k_index"] if "top_k_index" in kwargs else args[1]
        self.calls[name].append(given.detach().numpy().copy())

    def see_llama(self, name: str, module: Any, args: Any, kwargs: Any) -> None:
        """Keep which of the experts' inputs, all tokens times their scores for each expert, are not zero."""
        used = args[0].view(module.num_experts, -1, args[0].shape[-1]).abs().sum(dim=2) > 0
        self.calls[name].append(used.T.numpy().nonzero()[1].reshape(used.shape[1], -1))

    def see_jetmoe(self, name: str, module: Any, args: Any, kwargs: Any) -> None:
        """Keep which tokens' states are in the part of the input of each expert."""
        tokens = args[0].reshape(-1, args[0].shape[-1])
        inner = module.input_linear.forward

        def forward(inputs: Any, sizes: Any) -> Any:
            chosen: dict[int, list[int]] = defaultdict(list)
            for expert, part in enumerate(inputs.split(list(sizes))):
                for state in part:
                    for token in (tokens == state).all(dim=1).nonzero()[:, 0].tolist():
                        chosen[token].append(expert)
            rows = [sorted(set(chosen[token])) for token in range(len(tokens))]
            self.calls[name].append(np.array([row[: module.router.top_k] for row in rows]))
            module.input_linear.forward = inner
            return inner(inputs, sizes)

        module.input_linear.forward = forward


def prompts() -> tuple[Any, Any]:
    """Return three rows of 7, 4 and 1 tokens, padded on the left, and their mask."""
    torch: Any = importlib.import_module("torch")
    ids = torch.randint(3, VOCABULARY - 4, (len(LENGTHS), WIDTH), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, : WIDTH - length] = 0
    return ids * mask, mask


def run(model: Any, mode: str) -> None:
    """Run the model in one of the modes."""
    torch: Any = importlib.import_module("torch")
    ids, mask = prompts()
    with torch.no_grad():
        if mode == "generate":
            model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=STEPS + 1, do_sample=False, eos_token_id=None
            )
        elif mode == "forward":
            model(input_ids=ids, attention_mask=mask)
        else:
            cache = model(input_ids=ids, attention_mask=mask, use_cache=True).cache
            for step in range(STEPS):
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
                positions = mask.cumsum(dim=1)[:, -1:] - 1
                model(
                    input_ids=ids[:, -1 - step : WIDTH - step],
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=True,
                    **{mode: cache},
                )


def outcome(family: str, mode: str) -> Outcome:
    """Capture a tiny model of a family, and compare with what its experts were given."""
    model = model_of(family)
    name = type(model).__name__
    if mode != "forward" and not callable(getattr(model, "generate", None)):
        return Outcome(model=name, result="none")
    spy = Spy(model)
    try:
        with record(model) as recording:
            run(model, mode)
    except InputError as error:
        return Outcome(model=name, result="refused", detail=error.violations[0].code)
    finally:
        spy.leave()
    trace = recording.trace
    batch = next(trace.batches(10_000))
    steps = 0 if mode == "forward" else STEPS
    kept = prompts()[1].numpy().reshape(-1) != 0
    layers = [np.concatenate([calls[0][kept], *calls[1:]]) for calls in spy.calls.values()]
    given = np.stack(layers, axis=1)
    given = np.where(given >= trace.num_experts, -1, given)
    sequences = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
    positions = [place for length in LENGTHS for place in range(length)]
    sequences += list(range(len(LENGTHS))) * steps
    positions += [length + step for step in range(steps) for length in LENGTHS]
    found = {
        "experts": np.array_equal(np.sort(batch.topk_ids, axis=2), np.sort(given, axis=2)),
        "sequences": np.asarray(batch.seq_id).tolist() == sequences,
        "positions": np.asarray(batch.token_pos).tolist() == positions,
        "phases": np.asarray(batch.phase).tolist() == [0] * sum(LENGTHS) + [1] * steps * len(LENGTHS),
    }
    wrong = [what for what, same in found.items() if not same]
    return Outcome(model=name, result="wrong" if wrong else "exact", detail=", ".join(wrong))


def main() -> None:
    """Print a table of all families, or of those that are named."""
    logging.disable(logging.WARNING)
    transformers: Any = importlib.import_module("transformers")
    families = sys.argv[1:] or code_families()
    counts: dict[str, int] = defaultdict(int)
    sys.stdout.write(f"| family ({transformers.__version__}) | model | {' | '.join(MODES)} |\n")
    sys.stdout.write(f"|---{'|---' * (1 + len(MODES))}|\n")
    for family in families:
        found = [outcome(family, mode) for mode in MODES]
        counts[min((one.result for one in found if one.result != "none"), key=("wrong", "refused", "exact").index)] += 1
        cells = [one.result if not one.detail else f"{one.result}: {one.detail}" for one in found]
        sys.stdout.write(f"| {family.partition('.')[2]} | {found[0].model} | {' | '.join(cells)} |\n")
        sys.stdout.flush()
    summed = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
    sys.stdout.write(f"\n{len(families)} families: {summed}\n")


if __name__ == "__main__":
    main()
