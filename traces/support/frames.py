"""Tables for people who work with pandas (extra ``frame``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["frame"]


def frame(data: Any) -> DataFrame:
    """Return a pandas table of rows (a list of dicts) or columns (a dict of arrays).

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError('Tables need pandas: pip install "moe-placement[frame]".') from error
    return DataFrame(data)
