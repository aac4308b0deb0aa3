"""Whole numbers of experts in proportion to the room that there is."""

from __future__ import annotations

__all__ = ["shares"]


def shares(total: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return whole shares of `total` in proportion to `sizes`, by largest remainder; ties go to the first.

    A share is the exact one rounded down or up, so where `total` fits ``c`` slots on each of ``sum(sizes)`` GPUs, every
    share fits too.
    """
    exact = [divmod(total * size, sum(sizes)) for size in sizes]
    left = total - sum(whole for whole, _ in exact)
    order = sorted(range(len(sizes)), key=lambda index: -exact[index][1])
    return tuple(whole + (index in order[:left]) for index, (whole, _) in enumerate(exact))
