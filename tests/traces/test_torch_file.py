"""torch.save files without torch: every tensor as it was saved, and nothing of a hostile file is run."""

import pickle
import pickletools
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.torch_files import Pickle, View, torch_bytes, zip_bytes
from traces import InputError, load
from traces.decoding.files import TraceFile
from traces.decoding.torch_file import open_torch

BASE = np.arange(24, dtype=np.int32)


def opened(path: Path, content: bytes) -> Any:
    """Write a file and read it, every tensor as an array."""
    path.write_bytes(content)
    found = open_torch(TraceFile.of(path))
    with found.numbers() as numbers:
        if type(found.value) is not dict:
            return found.value
        return {k: numbers.array(v) if hasattr(v, "strides") else v for k, v in found.value.items()}


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "bool", "float16", "float32", "float64"])
def test_every_type_of_number(tmp_path: Path, dtype: str) -> None:
    """Integers, floats and booleans keep type, shape and values."""
    array = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    found = opened(tmp_path / "t.pt", torch_bytes({"a": array}))["a"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert found.flags.writeable


def test_plain_values_come_along(tmp_path: Path) -> None:
    """None, booleans, integers, floats, texts, lists, tuples and dictionaries."""
    value: dict[str, Any] = {
        "a": None,
        "b": [True, 1, -5, 1 << 40, 0.5, "ä", (1, (2,))],
        "c": {"d": {}},
        "e": float("nan"),
    }
    found = opened(tmp_path / "t.pt", torch_bytes(value))
    assert found["b"] == value["b"]
    assert (found["a"], found["c"]) == (None, {"d": {}})


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:7", "npu:1"])
def test_views_share_a_storage(tmp_path: Path, device: str) -> None:
    """Slices, transposes, expanded and empty views, wherever the tensor was."""
    views = {
        "slice": View(base=BASE, shape=(2, 3), strides=(6, 1), offset=7, device=device),
        "transposed": View(base=BASE, shape=(4, 6), strides=(1, 4), device=device),
        "expanded": View(base=BASE, shape=(3, 2), strides=(0, 1), offset=5, device=device),
        "empty": View(base=BASE, shape=(0, 5), strides=(5, 1), device=device),
        "scalar": View(base=BASE, shape=(), strides=(), offset=23, device=device),
    }
    found = opened(tmp_path / "t.pt", torch_bytes(views))
    for name, view in views.items():
        steps = tuple(4 * step for step in view.strides)
        expected = np.lib.stride_tricks.as_strided(BASE[view.offset :], view.shape, steps)
        assert np.array_equal(found[name], expected), name


def test_bfloat16_is_exact(tmp_path: Path) -> None:
    """The upper half of a float32."""
    values = np.array([0.0, 1.0, -2.5, 3.140625, np.inf], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.int16)
    view = View(base=halves, shape=(5,), strides=(1,), storage_name="BFloat16Storage")
    found = opened(tmp_path / "t.pt", torch_bytes({"a": view}))["a"]
    assert found.dtype == np.float32
    assert np.array_equal(found, values)


def test_big_endian(tmp_path: Path) -> None:
    """The member byteorder decides."""

    def swap(members: dict[str, bytes]) -> None:
        members["archive/byteorder"] = b"big"
        members["archive/data/0"] = BASE.byteswap().tobytes()

    assert np.array_equal(opened(tmp_path / "t.pt", torch_bytes({"a": BASE}, change=swap))["a"], BASE)


def test_newer_tensors_name_their_type(tmp_path: Path) -> None:
    """Types without a storage class of their own come as untyped bytes with a type."""
    made = Pickle()
    made.out += b"}("
    made.write("a")
    made.name("torch._utils", "_rebuild_tensor_v3")
    made.out += b"(("
    made.write("storage")
    made.name("torch.storage", "UntypedStorage")
    for part in ("0", "cpu", 8):
        made.write(part)
    made.out += b"tQ"
    for item in (1, (3,), (1,), False, None):
        made.write(item)
    made.name("torch", "uint16")
    made.out += b"tRu."
    members = {"x/data.pkl": bytes(made.out), "x/data/0": np.arange(4, dtype=np.uint16).tobytes()}
    found = opened(tmp_path / "t.pt", zip_bytes(members))["a"]
    assert found.dtype == np.uint16
    assert found.tolist() == [1, 2, 3]


def test_what_torch_saves(tmp_path: Path) -> None:
    """Files of the real torch.save: types, views, parameters, devices and types as values."""
    torch = pytest.importorskip("torch", reason="torch is not installed; the files above are made by hand")
    base = torch.arange(24, dtype=torch.int32).reshape(4, 6)
    value = {
        "a": base,
        "view": base.t()[1:3],
        "half": torch.ones(3, dtype=torch.bfloat16) * 1.5,
        "wide": torch.tensor([0, 1, 65_535], dtype=torch.uint16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "shape": base.shape,
        "type": torch.int32,
        "records": [{"rank": 0, "x": base[0]}],
    }
    torch.save(value, tmp_path / "t.pt")
    found = open_torch(TraceFile.of(tmp_path / "t.pt"))
    with found.numbers() as numbers:
        for name in ("a", "view", "half", "wide", "parameter"):
            expected = value[name].detach()
            expected = expected.float().numpy() if name == "half" else expected.numpy()
            assert np.array_equal(numbers.array(found.value[name]), expected), name
        assert numbers.array(found.value["records"][0]["x"]).tolist() == base[0].tolist()
    assert found.value["shape"] == (4, 6)


def data_pickle(data: bytes) -> bytes:
    """Return a file with that pickle and one storage."""
    return zip_bytes({"a/data.pkl": data, "a/data/0": bytes(96), "a/version": b"3\n"})


def call(module: str, name: str, argument: str = "x") -> bytes:
    """Return a pickle that calls a function."""
    made = Pickle()
    made.name(module, name)
    made.out += b"("
    made.write(argument)
    return bytes(made.out) + b"tR."


def storage(
    kind: str = "IntStorage", key: Any = "0", count: Any = 24, shape: Any = (24,), strides: Any = (1,)
) -> bytes:
    """Return a pickle of one tensor with such a storage."""
    made = Pickle()
    made.name("torch._utils", "_rebuild_tensor_v2")
    made.out += b"(("
    made.write("storage")
    made.name("torch", kind)
    for part in (key, "cpu", count):
        made.write(part)
    made.out += b"tQ"
    for part in (0, shape, strides, False, None):
        made.write(part)
    return bytes(made.out) + b"tR."


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "os.system": (call("posix", "system", "true"), "posix.system"),
    "os.system 2": (call("os", "system", "true"), "os.system"),
    "eval": (call("builtins", "eval", "1/0"), "builtins.eval"),
    "exec": (call("builtins", "exec", "1/0"), "builtins.exec"),
    "getattr": (call("builtins", "getattr"), "builtins.getattr"),
    "subprocess": (call("subprocess", "Popen"), "subprocess.Popen"),
    "python 2 names": (call("__builtin__", "eval"), "__builtin__.eval"),
    "dotted name": (call("torch", "serialization.load"), "torch.serialization.load"),
    "name inside a name": (call("torch._utils", "_rebuild_tensor_v2.__globals__"), "__globals__"),
    "torch.load": (call("torch.serialization", "load"), "torch.serialization.load"),
    "numpy loads": (call("numpy.core.multiarray", "_reconstruct"), "numpy.core.multiarray._reconstruct"),
    "a name with line ends": (b"\x80\x04\x8c\x08os\n\x8c\x04\x95\x95\x8c\x06system\x93.", ""),
    "a name as number": (b"\x80\x04K\x01K\x02\x93.", "no string"),
    "stack global": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system"),
    "endless name": (b"\x80\x02c" + b"x" * 5000, "too long"),
    "instance": (b"\x80\x02(iposix\nsystem\n.", "0x69"),
    "object": (b"\x80\x02(cposix\nsystem\no.", "posix.system"),
    "new object": (b"\x80\x02cbuiltins\nobject\n)\x81.", "builtins.object"),
    "extension": (b"\x80\x02\x82\x01.", "0x82"),
    "text integer": (b"\x80\x02I" + b"9" * 100_000 + b"\n.", "0x49"),
    "persistent text": (b"\x80\x02Pabc\n.", "0x50"),
    "huge integer": (b"\x80\x02\x8b" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b".", "an integer of"),
    "integer beyond the end": (b"\x80\x02\x8b\xff\xff\xff\xff.", "an integer of"),
    "string beyond the end": (b"\x80\x02X\xff\xff\xff\x7fabc.", "cut off"),
    "bytes beyond the end": (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "0x8e"),
    "call of a number": (b"\x80\x02K\x01)R.", "no function"),
    "call of a string": (b"\x80\x02U\x01a)R.", "0x55"),
    "call with no tuple": (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "no function"),
    "call with too much": (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "other arguments"),
    "attributes of a tensor type": (b"\x80\x02ctorch\nIntStorage\n}b.", "filled"),
    "empty": (b"", "cut off"),
    "stop at once": (b".", "cut off"),
    "mark as value": (b"\x80\x02(.", ""),
    "two values": (b"\x80\x02NN.", "more than one"),
    "missing memo": (b"\x80\x02h\x05.", "before it is made"),
    "list as key": (b"\x80\x02}]Ns.", "keys"),
    "tuple as key": (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.", "keys"),
    "key twice": (b"\x80\x02}(X\x01\0\0\0aNX\x01\0\0\0aNu.", "twice"),
    "odd pairs": (b"\x80\x02}(X\x01\0\0\0au.", "without a value"),
    "append to a number": (b"\x80\x02K\x01Na.", "filled"),
    "a set": (b"\x80\x04\x8f.", "0x8f"),
    "no storage": (call("torch._utils", "_rebuild_tensor_v2"), "other arguments"),
    "wrong storage": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00(K\x01t(K\x01t\x89NtR.",
        "make no sense",
    ),
    "persistent number": (b"\x80\x02K\x01Q.", "storage"),
    "storage of another size": (storage(count=25), "should take 100 bytes"),
    "negative storage": (storage(count=-1), "storage"),
    "endless storage": (storage(count=1 << 62), "storage"),
    "missing storage": (storage(key="7"), "should take"),
    "path as key": (storage(key="../../etc/passwd"), "storage"),
    "absolute path as key": (storage(key="/etc/passwd"), "storage"),
    "number as key": (storage(key=0), "storage"),
    "complex numbers": (storage(kind="ComplexFloatStorage"), "torch.ComplexFloatStorage"),
    "beyond the storage": (storage(shape=(25,)), "beyond"),
    "stride beyond the storage": (storage(shape=(2,), strides=(24,)), "beyond"),
    "negative stride": (storage(strides=(-1,)), "counts"),
    "shape of another length": (storage(shape=(2, 2)), "go together"),
    "shape as list": (storage(shape=[24]), "go together"),
    "too many axes": (storage(shape=(1,) * 65, strides=(1,) * 65), "go together"),
    "huge axis": (storage(shape=(1 << 62,), strides=(0,)), "counts"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path: Path, name: str) -> None:
    """Whatever is named, nothing is run, and the error says which file and what it wants."""
    data, reason = HOSTILE[name]
    (tmp_path / "t.pt").write_bytes(data_pickle(data))
    with pytest.raises(InputError) as error:
        load(tmp_path / "t.pt")
    (violation,) = error.value.violations
    assert violation.pointer.startswith("t.pt#")
    assert reason in violation.detail
    assert violation.remedy


@pytest.mark.parametrize("protocol", range(2, 6))
def test_real_pickles_never_spring(tmp_path: Path, protocol: int) -> None:
    """What Python itself would run on loading stays data, at any protocol and depth."""
    sprung = tmp_path / "sprung"
    nested: Any = Trap(sprung)
    for trap in (Trap(sprung), {"records": [nested]}, [1, ("a", {"b": Trap(sprung)})]):
        data = pickle.dumps(trap, protocol)
        assert any(item.name in ("REDUCE", "NEWOBJ") for item, _, _ in pickletools.genops(data))
        (tmp_path / "t.pt").write_bytes(data_pickle(data))
        with pytest.raises(InputError):
            load(tmp_path / "t.pt")
        (tmp_path / "bare.pt").write_bytes(data)
        with pytest.raises(InputError, match="never loaded"):
            load(tmp_path / "bare.pt")
    assert not sprung.exists()


def bomb(kind: str) -> bytes:
    """Return a pickle that is small and means much."""
    if kind == "laughs":  # every list holds the one before twice: 2^100 leaves
        steps = b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(100))
        return b"\x80\x02]q\x00" + steps + b"."
    if kind == "laughing tuples":
        return b"\x80\x02)" + b"q\x00h\x00\x86" * 100 + b"."
    if kind == "laughs in a dictionary":
        return b"\x80\x02}X\x07\0\0\0records" + bomb("laughs")[2:-1] + b"s."
    if kind == "deep":
        return b"\x80\x02)" + b"\x85" * 1_000_000 + b"."
    if kind == "deep lists":
        return b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b"."
    if kind == "itself":
        return b"\x80\x02]q\x00h\x00a."
    if kind == "many lists":
        return b"\x80\x02" + b"]" * 20_000_000 + b"."
    if kind == "many memos":
        return b"\x80\x04" + b"]\x94" * 10_000_000 + b"."
    assert kind == "many marks"
    return b"\x80\x02" + b"(" * 20_000_000 + b"."


@pytest.mark.parametrize(
    "kind",
    [
        *("laughs", "laughing tuples", "laughs in a dictionary", "deep", "deep lists", "itself"),
        *("many lists", "many memos", "many marks"),
    ],
)
def test_bombs_are_refused_in_time(tmp_path: Path, kind: str) -> None:
    """Lists that hold lists, without end, are not walked, compared or printed; too many instructions are refused."""
    (tmp_path / "t.pt").write_bytes(data_pickle(bomb(kind)))
    start = time.process_time()
    with pytest.raises(InputError):
        load(tmp_path / "t.pt")
    assert time.process_time() - start < 15  # seconds on any machine; walking them would take forever


def test_expanded_views_are_not_filled_without_end(tmp_path: Path) -> None:
    """A stride of 0 makes one number a tensor of any size."""
    (tmp_path / "t.pt").write_bytes(data_pickle(storage(shape=(1 << 40,), strides=(0,))))
    found = open_torch(TraceFile.of(tmp_path / "t.pt"))
    with found.numbers() as numbers, pytest.raises(InputError, match="tensor_too_large"):
        numbers.array(found.value)


def deflated(members: dict[str, bytes]) -> bytes:
    """Pack members compressed."""
    return zip_bytes(members, zipfile.ZIP_DEFLATED)


def doubled(members: dict[str, bytes]) -> bytes:
    """Pack the pickle twice under its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = zip_bytes(members)
        names = content.replace(b"a/other__", b"a/data.pk"[:9])
        return names.replace(b"a/data.pk_", b"a/data.pkl")


WRONG_ORDER = {"archive/byteorder": b"?"}
NOTHING = {"a/data.pkl": b"\x80\x02N."}
MANY = {f"a/{number}{'x' * 60_000}": b"" for number in range(300)}
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (lambda: deflated(NOTHING | {"a/data/0": bytes(1 << 20)}), "zip_method"),
    "twice": (lambda: doubled(NOTHING | {"a/other__l": b"\x80\x02."}), "duplicate_member"),
    "two folders": (lambda: zip_bytes(NOTHING | {"b/data/0": b""}), "not_torch"),
    "names that lead out": (lambda: zip_bytes(NOTHING | {"../../x": b""}), "not_torch"),
    "absolute names": (lambda: zip_bytes(NOTHING | {"/etc/x": b""}), "not_torch"),
    "program": (lambda: zip_bytes(NOTHING | {"a/constants.pkl": b""}), "not_torch"),
    "byte order": (
        lambda: torch_bytes({"logical_count": BASE.reshape(2, 3, 4)}, change=lambda m: m.update(WRONG_ORDER)),
        "bad_tensor",
    ),
    "cut off": (lambda: torch_bytes({"logical_count": BASE})[:-30], "damaged_file"),
    "flipped": (lambda: torch_bytes({"a": "text"}).replace(b"text", b"tExt"), "damaged_file"),
    "many members": (lambda: zip_bytes(NOTHING | MANY), "too_many_files"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_torch_does_not_write(tmp_path: Path, name: str) -> None:
    """Compression bombs, repeated members, other layouts and damage are refused before anything is read."""
    content, code = ARCHIVES[name]
    (tmp_path / "t.pt").write_bytes(content())
    with pytest.raises(InputError) as error:
        load(tmp_path / "t.pt", format="sglang_stat")
    assert error.value.violations[0].code == code


def test_other_content_is_no_trace(tmp_path: Path) -> None:
    """A model's weights are data, but no trace."""
    (tmp_path / "t.pt").write_bytes(torch_bytes({"weight": BASE}))
    with pytest.raises(InputError, match="no known trace format"):
        load(tmp_path / "t.pt")
