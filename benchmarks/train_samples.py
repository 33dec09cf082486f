"""Samples to train on, written as a join would write them, so that nobody has to score and wait for labels first."""

from collections.abc import Iterator
from typing import Final

from benchmarks import synthetic
from schemas.events import Sample
from schemas.wire import encode

_MINUTE_MS: Final = 60_000
_FIRST_EVENT_MS: Final = 1_600_000_000_000
DECLARATION: Final = f"""\
{synthetic.CONFIG}
[streams.{synthetic.STREAM}.join]
window_minutes = 60
lateness_minutes = 0

[streams.{synthetic.STREAM}.training]
days = 366
folds = 2
"""
"""The stream of the samples, as penstock.toml declares it. More keys of `training` may follow, and then its tables."""


def sample_records(count: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of `count` samples, a minute apart, whose labels came a minute after their events."""
    values = synthetic.draw(count, seed)
    labels = synthetic.labels(values, seed)
    for number, (row, label) in enumerate(zip(values.tolist(), labels, strict=True)):
        event_time_ms = _FIRST_EVENT_MS + number * _MINUTE_MS
        sample = Sample(
            event_id=synthetic.event_id(number),
            entity_id=synthetic.entity_id(number),
            revision=0,
            event_time_ms=event_time_ms,
            label_time_ms=event_time_ms + _MINUTE_MS,
            features=tuple(None if value != value else value for value in row),
            label=label,
            weight=1.0,
            score=0.9 if label else 0.1,  # as from a good model: nobody is to ask for training but the benchmark
            predicted=label,
            model_id="none",
            variant="champion",
            deployment_revision=1,
            scored_time_ms=event_time_ms,
        )
        yield synthetic.STREAM.encode(), encode(sample)
