"""YAML, strictly: no aliases, no repeated keys, nothing but plain values."""

from __future__ import annotations

from typing import Any

from placement.exports.shared.document import Document
from placement.support.json_files import MAX_INT
from traces import InputError

__all__ = ["read_yaml"]

MAX_DEPTH = 16


def read_yaml(document: Document) -> Any:
    """Parse a document as YAML.

    Raises
    ------
    InputError
        If it is not YAML, nested deeply, has an alias (a few lines of which stand for gigabytes), a tag or a key twice.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Strict(loader):  # type: ignore[misc,valid-type]  # chosen at run time
        """Refuses a key that occurs twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            pairs = [(self.construct_object(key, deep=True), value) for key, value in node.value]
            content: dict[Any, Any] = {}
            for key, value in pairs:
                if not isinstance(key, str | int | float | bool | None):
                    raise _refused(document, "A key is no plain value.", "Write layers as numbers.")
                if key in content:
                    raise _refused(document, f"Key {key!r:.40} occurs twice.", "Keep one.")
                content[key] = self.construct_object(value, deep=True)
            return content

    def whole(loader: Any, node: Any) -> int:
        value = int(loader.construct_yaml_int(node))
        if abs(value) > MAX_INT:
            raise _refused(document, f"{node.value[:20]} does not fit 64 bits.", "Correct the number.")
        return value

    Strict.add_constructor("tag:yaml.org,2002:int", whole)
    try:
        depth = 0
        for event in yaml.parse(document.text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise _refused(document, "The file has an alias (*).", "Write the values out.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _refused(document, "The file is nested too deeply.", "Check the file.")
        return yaml.load(document.text, Loader=Strict)  # noqa: S506  derived from the safe loader
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())[:200]
        raise InputError.of("not_yaml", document.name, f"This is not YAML: {text}.", "Check the file.") from error
    except (ValueError, OverflowError, RecursionError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise _refused(document, f"A value can't be read: {error!s:.100}.", "Check the file.") from error


def _refused(document: Document, detail: str, remedy: str) -> InputError:
    return InputError.of("not_yaml", document.name, detail, remedy)
