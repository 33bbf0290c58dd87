"""What stands beyond the border of an image: which pixel of a line is repeated there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

OUTSIDE = -1  # no pixel: a zero stands there


def _reflected(i: int, n: int) -> int:
    """Mirror a place about the first and the last of n pixels, as often as needed."""
    period = max(2 * (n - 1), 1)  # a single pixel stands for all
    i %= period
    return min(i, period - i) % n


def _symmetric(i: int, n: int) -> int:
    """Mirror a place about the border, there and back again, every pixel twice."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


# Which of n pixels stands at place i, outside them, too.
PIXEL_AT: dict[str, Callable[[int, int], int]] = {
    "zeros": lambda i, n: i if 0 <= i < n else OUTSIDE,
    "reflect": _reflected,
    "symmetric": _symmetric,
    "replicate": lambda i, n: min(max(i, 0), n - 1),
    "circular": lambda i, n: i % n,
}


def sources(length: int, before: int, after: int, border: str) -> list[int]:
    """Tell for each place of a line, and of so many before and after it, which pixel stands there, or OUTSIDE.

    border: one of `PIXEL_AT`; any other word is as "zeros".

    Examples
    --------
    >>> sources(3, 2, 2, "reflect"), sources(3, 2, 2, "symmetric"), sources(3, 2, 2, "replicate")
    ([2, 1, 0, 1, 2, 1, 0], [1, 0, 0, 1, 2, 2, 1], [0, 0, 0, 1, 2, 2, 2])
    >>> sources(3, 1, 2, "zeros"), sources(3, 1, 2, "circular")
    ([-1, 0, 1, 2, -1, -1], [2, 0, 1, 2, 0, 1])
    """
    pixel_at = PIXEL_AT.get(border, PIXEL_AT["zeros"])
    return [pixel_at(place, length) for place in range(-before, length + after)]
