"""What every reader of `<s>.samples` does alike: pass over what is no sample."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from schemas.wire import decode_each
from stream.batches import Record
from stream.screening import without

TRIGGER_KEY = b"trigger"

log = logging.getLogger("penstock.samples")

T = TypeVar("T", bound=msgspec.Struct)


def decode_records(
    decode: Callable[[bytes], T], records: Sequence[Record], stream: str
) -> tuple[Sequence[Record], Sequence[T]]:
    """Return the `records` that are samples, and the samples; those that are none are logged and left out."""
    found, bad = decode_each(decode, [record.value for record in records])
    for position, error in bad.items():
        log.warning("the record at offset %d of %s.samples is skipped: %s", records[position].offset, stream, error)
    return without(records, bad), found


def decode_samples(
    decode: Callable[[bytes], T], records: Sequence[Record], stream: str
) -> tuple[Sequence[int], Sequence[T]]:
    """Return the offsets and the samples of `records`; those that are none are logged and left out."""
    kept, found = decode_records(decode, records, stream)
    return [record.offset for record in kept], found


def keep(
    offsets: Sequence[int], samples: Sequence[T], usable: Callable[[T], bool], stream: str
) -> tuple[Sequence[int], Sequence[T]]:
    """Return the `usable` samples with their offsets; the others are logged and left out."""
    if all(map(usable, samples)):
        return offsets, samples
    kept = [position for position, sample in enumerate(samples) if usable(sample)]
    log.warning("%d records of %s.samples are of other features, classes or weights", len(samples) - len(kept), stream)
    return [offsets[i] for i in kept], [samples[i] for i in kept]
