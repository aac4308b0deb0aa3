"""A recording: what the hooks do, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.capture.calls import read_call, returned_cache
from traces.capture.generating import allow_reorder, forbid_reorder, watched_generate
from traces.capture.routers import Router
from traces.capture.sequences import Call, Generation, Sequences
from traces.capture.spool import Spool
from traces.formats import load
from traces.formats.writers import save
from traces.provenance import Provenance
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["Recording", "compiled"]


class Recording:
    """What is being recorded. Made by `record`.

    Attributes
    ----------
    routers : list of Router
        What is hooked, in the order of layers.
    sequences : Sequences
    """

    def __init__(self, model: Any, routers: list[Router], weights: bool, folder: Path | None) -> None:
        self.routers = routers
        self.sequences = Sequences()
        self._model, self._weights, self._folder = model, weights, folder
        self._spool: Spool | None = None
        self._trace: Trace | None = None
        self._call: Call | None = None
        self._generation: Generation | None = None
        self._chosen: dict[str, tuple[Any, Any]] = {}

    @property
    def tokens(self) -> int:
        """Tokens recorded so far."""
        return 0 if self._spool is None else self._spool.tokens

    @property
    def layer_ids(self) -> npt.NDArray[np.int64]:
        """Model layers that are recorded, (L,) int64."""
        return np.array([router.layer for router in self.routers], dtype=np.int64)

    @property
    def trace(self) -> Trace:
        """The trace, after the block.

        Raises
        ------
        InputError
            While the block runs, or where it ended with an error.
        """
        if self._trace is None:
            raise InputError.of(
                "recording_open", "/trace", "There is no trace yet, or none at all.", "Read it after the block."
            )
        return self._trace

    def hook(self, stack: ExitStack) -> None:
        """Set all hooks; `stack` removes them."""
        for router in self.routers:
            handle = router.module.register_forward_hook(self._hook_of(router), with_kwargs=True)
            stack.callback(handle.remove)
        stack.callback(self._model.register_forward_pre_hook(self._before, with_kwargs=True).remove)
        stack.callback(self._model.register_forward_hook(self._after, with_kwargs=True).remove)
        stack.enter_context(watched_generate(self._model, self._tell))
        stack.callback(self._release)

    def _release(self) -> None:
        for cache in self.sequences.caches():
            allow_reorder(cache)

    def finish(self, path: Path | None, compress: bool) -> None:
        """Turn what was recorded into a trace, and write it to `path`."""
        spool = self._spool
        if spool is None or spool.tokens == 0:
            detail = "The block ended, and no token went through the model."
            raise InputError.of("nothing_recorded", "/model", detail, "Call the model, or generate(), in the block.")
        spool.close()
        notes = []
        if self.sequences.began_earlier:
            notes.append(f"{self.sequences.began_earlier} sequences began before the recording.")
        provenance = Provenance(source=type(self._model).__name__, format="capture", notes=tuple(notes))
        trace = spool.trace(num_experts=self.routers[0].num_experts, layer_ids=self.layer_ids, provenance=provenance)
        self._trace = trace  # it stays if it can't be written
        if path is not None:
            save(trace, path, compress=compress)
            saved = load(path)
            assert isinstance(saved, Trace)
            self._trace = saved
            spool.close(discard=True)

    def discard(self) -> None:
        """Forget what was recorded."""
        if self._spool is not None:
            self._spool.close(discard=True)

    def _tell(self, generation: Generation | None) -> None:
        self._generation = generation

    def _before(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import torch

        if torch.compiler.is_compiling():
            raise compiled("model")
        self._chosen.clear()
        self._call = read_call(model, args, kwargs, self._generation)

    def _hook_of(self, router: Router) -> Callable[[Any, Any, Any, Any], None]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            import torch

            if torch.compiler.is_compiling():
                raise compiled(router.name)
            if self._call is None:
                if torch._C._current_graph_task_id() != -1:
                    return  # a backward pass computes the layer once more (gradient checkpointing)
                raise InputError.of(
                    "outside_call",
                    f"/{router.name}",
                    "The router ran outside of a call of the recorded model, so padding and sequences are unknown.",
                    "Give record() the module that is called: for wrapped models the inner one.",
                )
            if router.name in self._chosen:
                detail = "The router ran twice in one call of the model: layers share it, or chunks of tokens."
                raise InputError.of("router_twice", f"/{router.name}", detail, "Record other modules, with routers=.")
            indices, weights = router.read(module, args, kwargs, output)
            # Copies: the model may write to its own tensors later in the layer.
            indices = indices.detach().reshape(-1, indices.shape[-1]).to(torch.int32, copy=True)
            if weights is None or not self._weights or weights.numel() != indices.numel():
                weights = None
            else:
                weights = weights.detach().reshape(indices.shape).to(torch.float32, copy=True)
            self._chosen[router.name] = (indices, weights)

        return hook

    def _after(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        ids, weights = self._collect(call)
        placed = self.sequences.place(call)
        ids, weights = ids[placed.keep], None if weights is None else weights[placed.keep]
        self._check(ids, weights)
        cache = returned_cache(output)
        if cache is not None:
            self.sequences.adopt(cache)
            forbid_reorder(cache)
        if self._spool is None:
            self._spool = Spool(self._folder, ids.shape[1], ids.shape[2], weights is not None)
        self._spool.append(ids, weights, placed)

    def _collect(self, call: Call) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32] | None]:
        """Return ids and weights (B S, L, K) of the call."""
        missing = [router.name for router in self.routers if router.name not in self._chosen]
        if missing:
            raise InputError.of(
                "router_idle",
                f"/{missing[0]}",
                f"{len(missing)} of {len(self.routers)} routers did not run in a call of the model: a kernel that"
                " replaces the layer, or layers that are skipped.",
                "Turn such kernels off while recording, or name the routers that run with routers=.",
            )
        chosen = [self._chosen[router.name] for router in self.routers]
        self._chosen = {}
        widths = {router.name: int(ids.shape[1]) for router, (ids, _) in zip(self.routers, chosen, strict=True)}
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name}: {width}" for name, width in widths.items())
            raise InputError.of(
                "top_k_differs",
                "/top_k",
                f"Routers choose different numbers of experts: {listed}.",
                "Record the layers of each kind on their own, with routers=.",
            )
        rows = call.shape[0] * call.shape[1]
        for router, (ids, _) in zip(self.routers, chosen, strict=True):
            if len(ids) != rows:
                raise InputError.of(
                    "router_rows",
                    f"/{router.name}",
                    f"The router chose for {len(ids)} tokens, but the call has {call.shape[0]} x {call.shape[1]}.",
                    "Record modules that see all tokens of a call, in its order.",
                )
        indices = _stacked([ids for ids, _ in chosen])
        weights = None if any(weight is None for _, weight in chosen) else _stacked([weight for _, weight in chosen])
        return indices, weights

    def _check(self, ids: npt.NDArray[np.int32], weights: npt.NDArray[np.float32] | None) -> None:
        """Refuse at once what a trace can't hold, not at the end of a long recording."""
        for place, router in enumerate(self.routers):
            part = ids[:, place]
            if part.size and (part.min() < -1 or part.max() >= router.num_experts):
                raise InputError.of(
                    "ids_range",
                    f"/{router.name}",
                    f"Experts {part.min()} to {part.max()} were chosen out of {router.num_experts}.",
                    "Give `num_experts`, or `choose` with logical experts (-1 for none).",
                )
            ordered = np.sort(part, axis=1)
            if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
                raise InputError.of(
                    "duplicate_expert",
                    f"/{router.name}",
                    "A token chose an expert twice.",
                    "Record the indices that experts are called with: give choose=.",
                )
            if weights is not None and not (weights[:, place][part >= 0] >= 0).all():
                raise InputError.of(
                    "weights_range",
                    f"/{router.name}",
                    "A gate weight is negative or NaN, which a trace can't hold.",
                    "Record with weights=False.",
                )


def _stacked(tensors: list[Any]) -> npt.NDArray[Any]:
    """Return (tokens, L, K): one transfer if all layers are on one device."""
    import torch

    if len({tensor.device for tensor in tensors}) > 1:
        tensors = [tensor.cpu() for tensor in tensors]
    values: npt.NDArray[Any] = torch.stack(tensors, dim=1).cpu().numpy()
    return values


def compiled(name: str) -> InputError:
    """Return the error for a compiled module."""
    return InputError.of(
        "compiled_model",
        f"/{name}",
        "Compiled modules run without Python hooks.",
        "Record the module that was given to torch.compile; after model.compile(), load the model anew.",
    )
