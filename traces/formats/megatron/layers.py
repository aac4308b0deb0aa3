"""What the layers of a Megatron trace are counted from.

The hooks of the tracer, in training and in inference, take the layer's number from the module's name, which counts from
0. The recorder of the inference engine (`RouterReplay`, with ``moe_enable_routing_replay``) takes `layer_number`, which
counts from 1. The records look alike, and nothing in a file names its writer.

References
----------
megatron-core 0.19.2: ``RouterTracer.make_hook`` and ``record_indices`` in ``transformer/moe/router_trace.py``, the call
of the latter in ``inference/text_generation_controllers/text_generation_controller.py``.
"""

from __future__ import annotations

from traces.formats.hints import Hints
from traces.support.errors import InputError

__all__ = ["settle_base"]


def settle_base(layers: list[int], hints: Hints, place: str) -> int:
    """Return 0 or 1: as the caller says, as the layers show (0 is among them), or as they fit the model.

    Parameters
    ----------
    layers : list of int
        Of the recording, rising.
    hints : Hints
    place : str
        For errors.

    Raises
    ------
    InputError
        If nothing tells, or the caller says what can't be.
    """
    said = hints.layer_base
    if said is not None:
        if layers[0] < said:
            detail = "Layer 0 is recorded, so layers are not counted from 1."
            raise InputError.of("layer_base_differs", place, detail, "Leave `layer_base` out.")
        return said
    if layers[0] == 0:
        return 0
    if hints.model is not None:
        return int(tuple(layer - 1 for layer in layers) == hints.model.moe_layers)
    shown = ", ".join(map(str, layers[:8])) + (", ..." if len(layers) > 8 else "")
    detail = (
        f"Layers {shown} may be counted from 0, as the hooks of training do, or from 1, as the recorder of the "
        "inference engine (RouterReplay) does; the files don't say."
    )
    remedy = "Give `layer_base`, 0 or 1; or `model`, its config.json; or the layers themselves as `layer_ids`."
    raise InputError.of("layer_base_needed", place, detail, remedy)
