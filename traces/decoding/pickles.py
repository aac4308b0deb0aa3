"""A pickle machine that can't run anything: it builds plain values, and calls only what it is given by name.

Python's own unpickler calls whatever a file names, and even with a restricted `find_class` it hashes and compares what
the file nests, which can take forever or end the process. Here every instruction that makes data is written out, all
others are refused, and the number of instructions is bounded, and so the memory.

References
----------
The instructions are those of https://docs.python.org/3/library/pickletools.html.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from traces.support.errors import InputError

__all__ = ["MAX_PICKLE_BYTES", "Call", "Globals", "read_pickle"]

MAX_PICKLE_BYTES = 128 << 20
MAX_INSTRUCTIONS = 4_000_000  # at most about 100 bytes each
MAX_INTEGER_BYTES = 9
MAX_INTEGER_KEYS = 65_536  # integers can be chosen so that a dictionary of them takes forever
MAX_NAME_BYTES = 256

Call: TypeAlias = Callable[..., Any]
Globals: TypeAlias = Mapping[tuple[str, str], Any]  # a `Call`, or a value that stands for itself


class _Mark:
    """Where a list of arguments begins on the stack."""


MARK = _Mark()
UNKNOWN = object()


def read_pickle(data: bytes, place: str, known: Globals, persistent: Callable[[Any], Any]) -> Any:
    """Read a pickle of protocol 2 to 5.

    Parameters
    ----------
    data : bytes
    place : str
        What errors point at.
    known : mapping
        What the pickle may name, by module and name. Functions in it are called with the arguments of the pickle,
        and must check them.
    persistent : callable
        Returns what a persistent id stands for; the same holds for it.

    Returns
    -------
    object
        None, booleans, integers, floats, strings, bytes, lists, tuples, dictionaries with strings (or a few integers)
        for keys, and what `known` and `persistent` return. It may hold itself, and be nested to any depth: look at
        it level by level, and never compare, hash or print it as a whole.

    Raises
    ------
    InputError
        At the first instruction that is not in order, or names something else.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise _bad(place, f"it takes {len(data)} bytes, and more than {MAX_PICKLE_BYTES} are not read")
    machine = _Machine(data, place, known, persistent)
    collecting = gc.isenabled()
    try:
        gc.disable()  # it would look through millions of lists again and again, none of which is garbage
        return machine.run()
    except InputError:
        raise
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise _bad(place, "it is cut off, or its instructions make no sense") from error
    finally:
        if collecting:
            gc.enable()


def _bad(place: str, what: str) -> InputError:
    return InputError.of("bad_pickle", place, f"The pickle is refused: {what}.", "Save it again with torch.save.")


class _Machine:
    def __init__(self, data: bytes, place: str, known: Globals, persistent: Callable[[Any], Any]) -> None:
        self.data, self.place, self.known, self.persistent = data, place, known, persistent
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks = 0

    def run(self) -> Any:
        data, instructions = self.data, INSTRUCTIONS
        for _ in range(MAX_INSTRUCTIONS):
            code = data[self.position]
            self.position += 1
            if code == STOP:
                value = self.stack.pop()
                if self.stack or value is MARK:
                    raise self.bad("it leaves more than one value")
                return value
            instruction = instructions.get(code)
            if instruction is None:
                raise self.bad(f"instruction {code:#04x} makes no plain data")
            instruction(self)
        detail = f"The pickle takes more than {MAX_INSTRUCTIONS} instructions."
        raise InputError.of("pickle_too_long", self.place, detail, "Record shorter windows, in several files.")

    def bad(self, what: str) -> InputError:
        return _bad(self.place, what)

    def take(self, count: int) -> bytes:
        start = self.position
        self.position = end = start + count
        if end > len(self.data):
            raise IndexError
        return self.data[start:end]

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise self.bad("a value is missing")
        return value

    def items(self) -> list[Any]:
        """Pop all values down to the last mark."""
        stack = self.stack
        start = len(stack) - 1
        while stack[start] is not MARK:
            start -= 1
            if start < 0:
                raise IndexError
        values = stack[start + 1 :]
        del stack[start:]
        return values

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise self.bad(f"something else than a {kind.__name__} is filled")
        return value

    def text(self, width: int) -> None:
        self.push(self.take(self.unsigned(width)).decode("utf-8", "surrogatepass"))

    def integer(self, width: int) -> None:
        length = self.unsigned(width)
        if length > MAX_INTEGER_BYTES:
            raise self.bad(f"an integer of {length} bytes")
        self.push(int.from_bytes(self.take(length), "little", signed=True))

    def fill(self, pairs: list[Any]) -> None:
        target = self.top(dict)
        if len(pairs) % 2:
            raise self.bad("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str and (type(key) is not int or len(target) >= MAX_INTEGER_KEYS):
                raise self.bad("keys must be strings")
            if key in target:
                raise self.bad("a key occurs twice")
            target[key] = value

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + MAX_NAME_BYTES)
        if end < 0:
            raise self.bad("a name is too long")
        name = self.data[self.position : end].decode()
        self.position = end + 1
        return name

    def name(self, module: Any, name: Any) -> None:
        """Look a name up, and nowhere but in the list."""
        if type(module) is not str or type(name) is not str:
            raise self.bad("a name is no string")
        found = self.known.get((module, name), UNKNOWN)
        if found is UNKNOWN:
            shown = f"{module[:60]}.{name[:60]}".encode("ascii", "backslashreplace").decode()
            raise InputError.of(
                "forbidden_pickle",
                self.place,
                f"The pickle asks for {shown}, which is neither a tensor nor a plain value; nothing of it was run.",
                "Save tensors, numbers, strings, lists and dictionaries only; never load such a file elsewhere.",
            )
        self.push(found)

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple or not callable(function):  # only what `known` holds can be called
            raise self.bad("something is called that is no function")
        try:
            self.push(function(*arguments))
        except TypeError as error:  # a wrong number of arguments
            raise self.bad("a function is called with other arguments than torch.save writes") from error

    def build(self) -> None:
        """Take the attributes of a dictionary, such as a module's metadata, and forget them."""
        state = self.pop()
        if type(state) is not dict:
            raise self.bad("attributes are no dictionary")
        self.top(dict)

    def put(self, index: int) -> None:
        if self.stack[-1] is MARK:
            raise self.bad("a value is missing")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.bad("a value is used before it is made")
        self.push(self.memo[index])


STOP = ord(".")
INSTRUCTIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: lambda m: m.take(1),  # protocol
    0x95: lambda m: m.take(8),  # frame
    ord("("): lambda m: m.push(MARK),
    ord("0"): lambda m: m.pop(),
    ord("1"): lambda m: m.items(),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.unsigned(1)),
    ord("M"): lambda m: m.push(m.unsigned(2)),
    ord("J"): lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    0x8A: lambda m: m.integer(1),
    0x8B: lambda m: m.integer(4),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    0x8C: lambda m: m.text(1),
    ord("X"): lambda m: m.text(4),
    0x8D: lambda m: m.text(8),
    ord("C"): lambda m: m.push(m.take(m.unsigned(1))),
    ord("B"): lambda m: m.push(m.take(m.unsigned(4))),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.extend([m.pop()]),
    ord("e"): lambda m: m.extend(m.items()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.items())),
    0x85: lambda m: m.tuple(1),
    0x86: lambda m: m.tuple(2),
    0x87: lambda m: m.tuple(3),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.fill([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.fill(m.items()),
    ord("h"): lambda m: m.get(m.unsigned(1)),
    ord("j"): lambda m: m.get(m.unsigned(4)),
    ord("q"): lambda m: m.put(m.unsigned(1)),
    ord("r"): lambda m: m.put(m.unsigned(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: lambda m: m.stack_global(),
    ord("R"): lambda m: m.reduce(),
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.push(m.persistent(m.pop())),
}
