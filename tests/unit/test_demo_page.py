"""The demo's page: opened where there is a window for it, and kept until somebody ends it."""

import asyncio
import os
import signal
import webbrowser
from typing import Any

import pytest

from app.demo.page import has_browser, open_browser, until_interrupted

ADDRESS = "http://127.0.0.1:9110/"


class Browser(webbrowser.BaseBrowser):
    """Remembers what it was asked to open, and fails when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("told")
        self.opened: list[str] = []
        self._error = error

    def open(self, url: str, *_: Any, **__: Any) -> bool:
        self.opened.append(url)
        if self._error is not None:
            raise self._error
        return True


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"BROWSER": "firefox"}, "linux", True),
        ({}, "darwin", True),
        ({}, "win32", True),
    ],
)
def test_a_browser_needs_a_window_that_is_not_the_terminal(
    environ: dict[str, str], platform: str, expected: bool
) -> None:
    assert has_browser(environ, platform) == expected


@pytest.mark.parametrize("error", [None, OSError("no such program"), webbrowser.Error("no browser")])
async def test_a_browser_that_fails_does_not_matter(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    browser = Browser(error)
    monkeypatch.setattr(webbrowser, "_browsers", {"told": [None, browser]})
    monkeypatch.setattr(webbrowser, "_tryorder", ["told"])
    await open_browser(ADDRESS)
    assert browser.opened == [ADDRESS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_page_is_kept_until_a_signal_comes(number: signal.Signals) -> None:
    kept = asyncio.create_task(until_interrupted())
    await asyncio.sleep(0.05)
    assert not kept.done()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(kept, 2)
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(each)
