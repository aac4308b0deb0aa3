"""Tables for pandas, which is an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["frame"]


def frame(data: Any, index: str | None = None) -> DataFrame:
    """Return a pandas table of rows (a list of dicts) or columns (a dict of arrays).

    Parameters
    ----------
    data : list of dict, or dict of arrays
    index : str, optional
        Name of the row numbers.

    Raises
    ------
    ImportError
        If pandas is missing, with the command that installs it.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError('to_frame() needs pandas: pip install "moe-placement[frame]"') from error
    table = pd.DataFrame(data)
    return table if index is None else table.rename_axis(index)
