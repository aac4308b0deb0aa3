"""Tables for pandas, which is an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["frame", "import_pandas"]


def import_pandas() -> Any:
    """Return pandas.

    Raises
    ------
    ImportError
        With the command that installs it.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError('to_frame() needs pandas: pip install "moe-placement[frame]"') from error
    return pd


def frame(data: Any) -> DataFrame:
    """Return a pandas table of rows (a list of dicts) or columns (a dict of arrays).

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    table: DataFrame = import_pandas().DataFrame(data)
    return table
