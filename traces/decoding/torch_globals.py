"""What the pickle in a file of `torch.save` may name: storages, types, and the functions that rebuild tensors.

Nothing of torch runs: each name stands for a function of ours, and a name that is not listed is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traces.decoding.pickles import Globals
from traces.decoding.torch_tensors import DTYPES, STORAGES, Storage, Tensor, make_tensor
from traces.support.errors import InputError

__all__ = ["KNOWN", "storage_of"]


def storage_of(identifier: Any, place: str) -> Storage:
    """Read ``("storage", type, key, device, count)``."""
    if type(identifier) is tuple and len(identifier) == 5:
        tag, kind, key, device, count = identifier
        if (
            type(tag) is str
            and tag == "storage"
            and type(kind) is _StorageType
            and type(key) is str
            and key.isascii()
            and key.isdigit()
            and len(key) < 20
            and type(device) is str
            and type(count) is int
            and 0 <= count < 1 << 48
        ):
            return Storage(key=key, dtype=kind.dtype, count=count, place=place)
    raise InputError.of("bad_tensor", place, "A storage is not described as by torch.save.", "Save it again.")


@dataclass(frozen=True, kw_only=True)
class _StorageType:
    """Stands for a class such as ``torch.IntStorage``."""

    dtype: str


@dataclass(frozen=True, kw_only=True)
class _DType:
    """Stands for a value such as ``torch.int32``."""

    dtype: str


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = False, _hooks: Any = None, _metadata: Any = None
) -> Tensor:
    return make_tensor(storage, offset, shape, strides)


def _rebuild_typed(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, _metadata: Any = None
) -> Tensor:
    if type(dtype) is not _DType:
        raise ValueError("a tensor without a type")
    return make_tensor(storage, offset, shape, strides, dtype.dtype)


def _rebuild_parameter(data: Any, _grad: Any = False, _hooks: Any = None) -> Any:
    return data


def _size(lengths: Any = ()) -> Any:
    return lengths if type(lengths) is tuple else ()


def _device(*_of: Any) -> None:
    return None


def _ordered() -> dict[Any, Any]:
    return {}


def _mode(value: Any) -> Any:
    return value if type(value) is int else None


KNOWN: Globals = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): _ordered,
    # An enumeration of the engine, which some versions save as it is.
    ("sglang.srt.model_executor.forward_batch_info", "ForwardMode"): _mode,
    ("torch.storage", "UntypedStorage"): _StorageType(dtype="uint8"),
    **{("torch", name): _StorageType(dtype=dtype) for name, dtype in STORAGES.items()},
    **{("torch", name): _DType(dtype=name) for name in DTYPES},
}
