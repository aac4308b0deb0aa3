"""What was installed: its version, and whether Python finds its own packages; it imports none of them.

The packages `traces`, `placement`, `solvers` and `api` have short names, which a folder in the working directory or
another distribution may have too. This package has a name of its own, so it can say what hides them.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["PACKAGES", "PackageError", "require", "version"]

PACKAGES = ("traces", "placement", "solvers", "api")
ROOT = Path(__file__).resolve().parents[1]
FIRST_WORD = b'"""Step '  # of each package; a distribution that installs over ours replaces __init__.py


class PackageError(ImportError):
    """A package of this distribution is hidden, replaced or missing."""


def version() -> str:
    """Return the version that is installed."""
    from importlib import metadata

    try:
        return metadata.version("moe-placement")
    except metadata.PackageNotFoundError:  # a source tree on Python's path, never installed
        return "0+unknown"


def require(*names: str) -> None:
    """Check that packages of this distribution are the ones that Python finds, before they are imported.

    Parameters
    ----------
    *names : str
        Of `PACKAGES`.

    Raises
    ------
    PackageError
        If something hides one, has replaced one, or one is missing; for each, with its path and what to do.
    """
    wrong = [told for name in names if (told := _wrong(name)) is not None]
    if wrong:
        raise PackageError("\n".join(wrong))


def _wrong(name: str) -> str | None:
    """Return what is wrong with what Python finds under a name; None if it is ours."""
    ours = ROOT / name
    found = _origin(name)
    if found is None:
        remedy = "Install it again: pip install --force-reinstall moe-placement"
        return f"The package {name!r} of moe-placement is not in {ours}. {remedy}"
    if found.resolve().parent != ours:
        entry = found.parents[1] if found.name.startswith("__init__.") else found.parent
        return (
            f"Python finds {name!r} at {found}, which hides the package {name!r} of moe-placement in {ours}. "
            f"Rename it, or keep {entry} off Python's path: it is the working directory, the script's folder, in "
            "PYTHONPATH, or where another distribution is installed."
        )
    if found.suffix == ".py" and not found.read_bytes().startswith(FIRST_WORD):
        return (
            f"Another distribution{_others(name)} has replaced {found}, which belongs to moe-placement. They can't be "
            "in one environment: install moe-placement in a new one, or uninstall the other and then run: "
            "pip install --force-reinstall moe-placement"
        )
    return None


def _origin(name: str) -> Path | None:
    """Return the file of a package, without running it; None if there is none."""
    module = sys.modules.get(name)
    if module is None:
        spec = find_spec(name)
        origin = None if spec is None or not spec.has_location else spec.origin
    else:
        origin = getattr(module, "__file__", None)
    return None if origin is None else Path(origin)


def _others(name: str) -> str:
    from importlib.metadata import packages_distributions

    found = sorted(set(packages_distributions().get(name, ())) - {"moe-placement"})
    return f" ({', '.join(found)})" if found else ""
