"""The interval of a share of events, such as an accuracy."""

import math
from typing import Final

_NORMAL_95: Final = 1.959964


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95% score interval of a share (0 to 1) of `n` events; of none it is everything.

    It takes events for independent and equally heavy. Source: Wilson 1927, "Probable inference, the law of succession,
    and statistical inference", J. Am. Stat. Assoc. 22.
    """
    if n <= 0:
        return 0.0, 1.0
    spread = _NORMAL_95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)
