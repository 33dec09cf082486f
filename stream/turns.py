"""Lets one step begin per turn of the event loop, so that steps of many tasks do not add up to one long hold."""

import asyncio
from collections import deque


class Turns:
    """A queue of tasks that want the loop for a step. Taking a turn costs a few microseconds."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Return when no other step has begun in this turn of the loop; first come, first served."""
        loop = asyncio.get_running_loop()
        if self._taken:
            mine = loop.create_future()
            self._waiting.append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._pass_on()  # the turn was ours already: it must not be lost
                raise
        self._taken = True
        loop.call_soon(self._pass_on)  # in the next turn, however long this step takes

    def _pass_on(self) -> None:
        while self._waiting:
            following = self._waiting.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._taken = False
