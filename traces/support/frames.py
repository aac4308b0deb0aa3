"""Tables for pandas, which is an extra."""

from __future__ import annotations

from typing import Any

__all__ = ["import_pandas"]


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
