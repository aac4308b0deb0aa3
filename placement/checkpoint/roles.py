"""What a tensor of an MoE layer is to its experts, by its name within the layer and its shape.

Everything in the block of experts and router has to be explained: what no rule knows is refused, never copied.
Sources: the checkpoints that transformers 5.24 reads and writes, family by family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from placement.checkpoint.files import Tensor

__all__ = ["Listed", "Moves", "Role", "Stays", "Table", "has_experts", "roles_of"]

LISTED = re.compile(r"^((?:.*\.)?experts\.)(\d+)(\..+)$")
STACKED = re.compile(r"^(.*\.)?experts\.(?!\d)")
# Modules that hold the weights of all experts though their name doesn't say so: GraniteMoE, JetMoe; Step 3.
ALL_IN_ONE = re.compile(r"^(?:.*\.)?(?:(?:input|output)_linear|(?:gate|up|down|gate_up)_proj)\.weight$")
FUSED = re.compile(r"(?:^|\.)experts\.mlp\.(?:w1|v1|w2)$")  # DBRX: (E * ffn, d)
ROUTER = re.compile(r"(?:^|\.)(?:gate|wg|[^.]*router[^.]*)(?:\.|$)")
BIAS = re.compile(r"(?:expert_bias|correction_bias|balancing_biases|router_bias|routing_bias)$")
TABLE = re.compile(r"(?:^|\.)tid2eid$")  # DeepSeek-V4: experts of each token id
ATTENTION = re.compile(r"(?:^|\.)[^.]*(?:attn|attention)[^.]*\.", re.IGNORECASE)
NAMED = re.compile(r"(?:^|\.)(?:moe\.|moe_|[^.]*(?:expert|router))", re.IGNORECASE)
SHARED = re.compile(r"(?:^|\.)shared?_[^.]*\.")
# In the block, and nothing of an expert's: sizes are the model's, whatever they are.
OTHERS = re.compile(
    r"(?:^|\.)(?:"
    r"gate\.global_scale"  # Inkling
    r"|router\.scale"  # Gemma 4: a factor per channel
    r"|(?:pre|post)_expert_(?:proj|norm)\.weight"  # Muse Spark: into and out of the experts' width
    r"|gate\.(?:down_proj\.(?:weight|bias)|router_mlp\.(?:fc\d|norm)\.(?:weight|bias)|router_states_scale)"  # ZAYA
    r")$|^mlp\.bias$"  # JetMoe: added to the sum of all experts
)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Belongs to one expert, and says so in its name: ``head + number + tail``."""

    head: str
    expert: int
    tail: str


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Its first axis is the experts', in as many equal parts of its bytes; what is behind them stays.

    Attributes
    ----------
    parts : int
        Equal parts of the tensor, of which the first E are experts'.
    """

    parts: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """Its values are experts."""


@dataclass(frozen=True, kw_only=True)
class Stays:
    """Has nothing to do with which expert is which."""


Role = Listed | Moves | Table | Stays


def has_experts(path: str, tensor: Tensor) -> bool:
    """Tell whether a tensor, by its name within a layer, is a weight of routed feed-forward experts."""
    return not ATTENTION.search(path) and not SHARED.search(path) and _root(path, tensor) is not None


def roles_of(layer: Mapping[str, Tensor], experts: int, zero: int, shared: int) -> dict[str, Role | None]:
    """Return what each tensor of an MoE layer is; None for what no rule explains.

    Parameters
    ----------
    layer : mapping of str to Tensor
        By name within the layer.
    experts : int
        E.
    zero, shared : int
        Experts that compute nothing, and shared ones: routers may have choices for them, behind the others.
    """
    anchors = {path: tensor for path, tensor in layer.items() if has_experts(path, tensor)}
    roots = tuple({root for path, tensor in anchors.items() if (root := _root(path, tensor)) is not None})
    modules = tuple({path.removesuffix("weight") for path in anchors if ALL_IN_ONE.match(path)})
    return {
        path: _role(path, tensor, experts, (zero, shared), modules) if _in_block(path, roots) else Stays()
        for path, tensor in layer.items()
    }


def _root(path: str, tensor: Tensor) -> str | None:
    """Return the name of the block that a weight of experts shows, which ends in a dot or is empty."""
    if match := LISTED.match(path):
        return match[1].removesuffix("experts.")
    if match := STACKED.match(path):
        return match[1] or ""
    if ALL_IN_ONE.match(path) and len(tensor.shape) > 2:
        return path.rsplit(".", 2)[0] + "." if path.count(".") > 1 else ""
    return None


def _in_block(path: str, roots: tuple[str, ...]) -> bool:
    if ATTENTION.search(path):
        return False
    if any(root and path.startswith(root) for root in roots) or NAMED.search(path):
        return True
    return "" in roots and path.partition(".")[0] == "gate"  # the layer itself is the block; others live there too


def _role(path: str, tensor: Tensor, experts: int, more: tuple[int, int], modules: tuple[str, ...]) -> Role | None:
    if SHARED.search(path) or OTHERS.search(path):
        return Stays()
    if match := LISTED.match(path):
        expert = int(match[2])
        idle = experts <= expert < experts + more[0]  # LongCat-Flash lists some, which are never used
        return Stays() if idle else Listed(head=match[1], expert=expert, tail=match[3])
    if TABLE.search(path):
        return Table() if tensor.dtype in ("I64", "I32") else None
    shape = tensor.shape
    inside = STACKED.match(path) is not None or path.startswith(modules)
    router = BIAS.search(path) is not None or (ROUTER.search(path) is not None and not path.startswith(modules))
    if FUSED.search(path):
        return _moves(tensor, experts) if shape[0] % experts == 0 else None
    if not inside and not router:
        return None
    if len(shape) > 1 and shape[0] == 1 and BIAS.search(path):  # ERNIE 4.5
        shape = shape[1:]
    if shape and shape[0] == experts:
        return _moves(tensor, experts)
    if shape and shape[0] - experts in (more if router else more[:1]):
        return _moves(tensor, shape[0])
    return Stays() if prod(shape) == 1 else None


def _moves(tensor: Tensor, parts: int) -> Moves | None:
    """Return the role, unless the parts share bytes."""
    return Moves(parts=parts) if (tensor.end - tensor.begin) % parts == 0 else None
