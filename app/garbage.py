"""Garbage collection where objects come and go by whole batches."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Let batches live and die by reference counts: the default looks for cycles after every 700 new objects.

    A replay takes a quarter less time so. Of a whole process, so for one at a time.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
