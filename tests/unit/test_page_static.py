"""The page's files: nothing in them needs another host, and what is not ours is what its authors published."""

import hashlib
import re
from typing import Final

import msgspec

from app.page.document import Board
from app.page.server import STATIC
from tests.browser import RECORDED

_OURS: Final = [path for path in STATIC.rglob("*.*") if "vendor" not in path.parts]


def test_the_vendored_files_are_those_of_the_package() -> None:
    table = (STATIC / "vendor" / "README.md").read_text()
    sums = dict(re.findall(r"^\| `(\S+)` \| uplot \| 1\.6\.32 \| `([0-9a-f]{64})` \|$", table, re.MULTILINE))
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    assert sums == {name: digest for name, digest in there.items() if name != "README.md"}


def test_no_file_of_the_page_names_another_host() -> None:
    known = "http://www.w3.org/2000/svg"  # the name of SVG, which nobody fetches
    named = {path.name: re.findall(r"(?:https?:)?//[\w.]+[^\s'\"]*", path.read_text()) for path in _OURS}
    assert {name: found for name, found in named.items() if set(found) - {known}} == {}


def test_no_file_of_the_page_makes_markup_of_data() -> None:
    makers = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "style=")
    assert [(path.name, maker) for path in _OURS for maker in makers if maker in path.read_text()] == []


def test_every_script_and_style_that_is_named_is_there() -> None:
    for path in _OURS:
        text = path.read_text()
        for name in re.findall(r"(?:from|src=|href=)\s?['\"]([\w./]+\.(?:js|css|svg))['\"]", text):
            assert (path.parent / name).is_file(), f"{path.name} names {name}"


def test_the_recorded_document_has_the_shape_that_the_server_sends() -> None:
    board = msgspec.json.decode(RECORDED.read_bytes(), type=Board, strict=True)
    assert msgspec.json.decode(msgspec.json.encode(board), type=Board) == board
