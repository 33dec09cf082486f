"""How far a time that stands in a record is believed: not much further than the timestamp that Kafka gave the record.

One wrong clock out there must not end what all others wait for. Timestamps are in the log, so whoever reads the same
records again believes the same.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SLACK_MS: Final = 24 * 60 * 60_000


def bounded(times_ms: Ints, timestamps_ms: Ints) -> Ints:
    """Return the times as far as they are believed; one further ahead than SLACK_MS is so far ahead and no more."""
    return np.minimum(times_ms, timestamps_ms + SLACK_MS)
