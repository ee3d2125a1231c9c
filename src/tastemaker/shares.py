"""A share with its 95 % interval. Standard library only."""

from __future__ import annotations

import math

from .errors import TastemakerError
from .records import Interval

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution


def wilson(successes: int, n: int) -> Interval:
    """The share successes / n with Wilson's score interval (Wilson 1927, JASA 22:209; also Brown et al. 2001).

    Raises TastemakerError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise TastemakerError(f"expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    share, shrink = successes / n, Z95**2 / n
    middle = (share + shrink / 2) / (1 + shrink)
    half = Z95 * math.sqrt(share * (1 - share) / n + shrink / (4 * n)) / (1 + shrink)
    # at 0 and n the bounds are exactly 0 and 1; rounding must not put them past the value
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), n)


def share_of(successes: int, n: int) -> Interval | None:
    """As `wilson`; None where nothing was counted."""
    return wilson(successes, n) if n else None
