"""The live page of the demo's worker: shown in a browser, and kept until somebody has seen enough of it."""

import asyncio
import contextlib
import signal
import sys
import webbrowser
from collections.abc import Mapping
from typing import Final

_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def has_browser(environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Return whether a browser would have a window of its own; one in the terminal would write over the demo."""
    return platform in ("darwin", "win32") or any(environ.get(name) for name in _DISPLAYS)


async def open_browser(address: str) -> None:
    """Open `address` in the user's browser; one that does not start is none of the demo's business."""
    with contextlib.suppress(webbrowser.Error, OSError):
        await asyncio.to_thread(webbrowser.open, address)


async def until_interrupted() -> None:
    """Return at Ctrl-C or SIGTERM, which end nothing else meanwhile."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
