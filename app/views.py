"""Views of a stream made anew from its logs, without any worker: what `penstock views rebuild` does."""

import asyncio
import logging
from functools import partial
from typing import Final

from agents.views import Fold
from app.models import log_reader, require_topics
from schemas.streams import StreamSpec
from stores.views import Changes, RedisViews, ViewsChanged
from stream.connection import KafkaConnection
from stream.tail import read_back

log = logging.getLogger("penstock.views")

_ATTEMPTS: Final = 5
_PAUSE_S: Final = 1.0


async def rebuild(connection: KafkaConnection, spec: StreamSpec, views: RedisViews, now_ms: int) -> Changes:
    """Write every view of the stream as its logs have it, and remove what does not belong; return how many keys.

    A worker that keeps the same views notices, and writes its own over them, which are the same or newer. Where the
    two meet in the middle, this begins again, at most four times. Raises SettingsError when the stream's topics do not
    exist, and ViewsUnavailable.
    """
    await require_topics(connection, spec)
    fold = Fold(spec.name)
    await fold.recall(partial(read_back, partial(log_reader, connection)), None, now_ms)
    view = fold.view()
    for attempt in range(1, _ATTEMPTS):
        try:
            return await views.show(spec.name, None, view, now_ms)
        except ViewsChanged as error:
            log.info("attempt %d: %s", attempt, error)
            await asyncio.sleep(_PAUSE_S)
    return await views.show(spec.name, None, view, now_ms)
