"""The pages that people read, and what stands in them: commands, code, links, headings."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
}

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED: Final = re.compile(r"(?:^ {4}.*\n|(?<=\n)\n(?= {4}))+", re.MULTILINE)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_ASSIGNMENT: Final = re.compile(r"[A-Z_]+=\S*")
_ENDS_OF_COMMAND: Final = frozenset({"|", ">", "&", "&&", ";"})


def text_of(page: str) -> str:
    """Return a page as it is written."""
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced pieces of code in a language."""
    return [code for found, code in _FENCE.findall(text_of(page)) if found == language]


def settings_files(page: str) -> list[str]:
    """Return the pieces of `penstock.toml`, whether they are fenced or indented."""
    prose = _FENCE.sub("", text_of(page))
    indented = [textwrap.dedent(piece).lstrip() for piece in _INDENTED.findall(prose)]
    return blocks(page, "toml") + [piece for piece in indented if re.match(r"(#.*\n)*\[", piece)]


def links(page: str) -> list[str]:
    """Return the targets of links and images that lead to files of the project, and to places in them."""
    prose = _FENCE.sub("", text_of(page))
    return [target for target in _LINK.findall(prose) if "://" not in target]


def anchors(path: Path) -> set[str]:
    """Return the names by which the headings of a page can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lines_of_commands(page: str, program: str) -> list[list[str]]:
    """Return the words after `program` of every command that stands on a line of its own."""
    prose = _FENCE.sub("", text_of(page))
    lines = [line for line in prose.splitlines() if line.startswith("    ")]
    lines += [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [words for line in lines if (words := _words(line, program)) is not None]


def mentioned_commands(page: str, program: str) -> list[list[str]]:
    """Return the words after `program` of every command that is named in a sentence."""
    prose = _FENCE.sub("", text_of(page))
    return [words for span in _SPAN.findall(prose) if (words := _words(span, program)) is not None]


def names(page: str, pattern: str) -> set[str]:
    """Return every whole match of `pattern` on a page."""
    return set(re.findall(pattern, text_of(page)))


def _words(line: str, program: str) -> list[str] | None:
    """Return the words of a line's command without its end (a comment, a pipe, `&`), if it is `program`'s."""
    if re.match(rf"\s*({_ASSIGNMENT.pattern}\s+)*{program}\b", line) is None:
        return None
    words = list(_until_end(shlex.split(line, comments=True)))
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    return words[1:] if words and words[0] == program else None


def _until_end(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in _ENDS_OF_COMMAND:
            return
        yield word
