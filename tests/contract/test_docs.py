"""What the README and docs/ say can be done as it is written: commands, settings, topics, events and links exist."""

import ast
import re
import signal
import tomllib
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from app.cli.main import cli
from app.settings import Settings, load_settings
from benchmarks import chaos
from benchmarks.__main__ import main as bench
from schemas.events import Alert, Label
from schemas.features import FeatureReader
from schemas.streams import StreamSpec
from schemas.wire import decode
from stream.metrics import METRICS
from tests.documents import (
    PAGES,
    ROOT,
    anchors,
    blocks,
    lines_of_commands,
    links,
    mentioned_commands,
    names,
    settings_files,
    text_of,
)
from topics import topics_of

WRITTEN = [page for page in PAGES if page not in ("docs/cli.md", "docs/settings.md", "docs/metrics.md")]
GUIDES = [page for page in WRITTEN if "decisions" not in page and "schemas" not in page]
EVENTS = msgspec.json.Decoder(dict[str, Any])
PLACEHOLDER = re.compile(r"[A-Z_:]+|.*…")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_is_there(page: str) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        assert path.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page} links to {target}"


@pytest.mark.parametrize("page", GUIDES)
def test_every_command_can_be_given_as_it_is_written(page: str) -> None:
    for words in lines_of_commands(page, "penstock"):
        assert problem(words, whole=True) is None, f"{page}: penstock {' '.join(words)}"


@pytest.mark.parametrize("page", WRITTEN)
def test_every_command_that_is_mentioned_exists_with_its_options(page: str) -> None:
    for words in mentioned_commands(page, "penstock"):
        assert problem(words, whole=False) is None, f"{page}: penstock {' '.join(words)}"


def problem(words: list[str], *, whole: bool) -> str | None:
    """Return what the command line would say against these words; files need not exist.

    Of a command that is only mentioned, arguments may be left out.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="penstock", **cli.context_settings)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            return f"no such command: {rest[0]}"
        command, context = found, click.Context(found, info_name=rest.pop(0), parent=context)
    if isinstance(command, click.Group):
        return "a command is missing" if whole and not rest else None
    try:
        given, left, _ = command.make_parser(context).parse_args(args=rest)
        for parameter in command.params:
            check_value(context, parameter, given.get(parameter.name or ""), required=whole)
    except click.UsageError as error:
        return error.format_message()
    return f"too much: {left}" if left else None


def check_value(context: click.Context, parameter: click.Parameter, value: Any, *, required: bool) -> None:
    """Raise UsageError for a value that the parameter does not take; placeholders and files are let pass."""
    values = value if isinstance(value, list | tuple) else [value]
    given = [word for word in values if isinstance(word, str)]
    if parameter.required and required and not given:
        raise click.MissingParameter(param=parameter, ctx=context)
    for word in given:
        if not PLACEHOLDER.fullmatch(word) and not isinstance(parameter.type, click.Path | click.File):
            parameter.type.convert(word, parameter, context)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("models promote", "Missing"),
        ("models promote A B", "too much"),
        ("models promot A", "no such command"),
        ("models promote A --expected x", "No such option"),
        ("drift baseline M --events few", "not a valid"),
        ("models", "missing"),
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(line: str, says: str) -> None:
    found = problem(line.split(), whole=True)
    assert found is not None
    assert says in found


def test_the_guides_do_show_commands() -> None:
    counted = {page: len(lines_of_commands(page, "penstock")) for page in GUIDES}
    for page in ("README.md", "docs/quickstart.md", "docs/concepts.md", "docs/operations.md", "docs/replay.md"):
        assert counted[page] >= 5, page


@pytest.mark.parametrize("page", GUIDES)
def test_every_target_of_make_exists_and_takes_what_is_said(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # a benchmark's own way to end is none for tests
    commands = lines_of_commands(page, "make") + mentioned_commands(page, "make")
    for target, *rest in filter(None, commands):
        assert target in targets, f"{page}: make {target}"
        words = " ".join(rest).removeprefix("ARGS=").split()
        assert refused(target, words, monkeypatch) is None, f"{page}: make {target} {words}"


def refused(target: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return what the program behind a target says against its arguments, where it is one of ours."""
    if target == "demo":
        return problem(["demo", *words], whole=True)
    if target == "chaos":
        return None if chaos.parse(words) else "refused"
    if target != "bench" or not words:
        return None
    monkeypatch.setattr("sys.argv", ["bench", words[0], "--help"])
    with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit) as ended:
        bench()
    unknown = {word for word in words if word.startswith("--")} - set(re.findall(r"--[a-z-]+", said.getvalue()))
    return str(unknown) if unknown or ended.value.code else None


@pytest.mark.parametrize("page", GUIDES)
def test_every_piece_of_toml_is_taken(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for secret in ("kafka.password", "signing.key", "authorities.pem"):
        Path(secret).write_text("hush")
    for number, block in enumerate(settings_files(page)):
        path = tmp_path / f"{number}.toml"
        path.write_text(completed(block), encoding="utf-8")
        assert load_settings({}, path).streams, f"{page}: {block}"


def completed(block: str) -> str:
    """Return a piece of a settings file with the features that its stream needs, where it does not name them."""
    document = tomllib.loads(block)
    features = ["month", "weekday", "departure_minute", "distance_miles"]
    missing = [name for name, table in document.get("streams", {"flights": {}}).items() if "features" not in table]
    return block + "".join(f"\n[streams.{name}]\nfeatures = {features}\n" for name in missing)


def test_settings_are_found_wherever_they_stand() -> None:
    assert len(settings_files("docs/sinks.md")) >= 2
    assert len(settings_files("docs/concepts.md")) >= 6


def test_one_s_own_kafka_takes_ten_lines() -> None:
    [table] = blocks("README.md", "toml")
    assert len([line for line in table.splitlines() if line.strip()]) <= 10


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) < 200


@pytest.mark.parametrize("page", GUIDES)
def test_every_event_that_is_shown_is_one(page: str) -> None:
    for block in blocks(page, "json"):
        event = EVENTS.decode(block)
        if "features" in event:
            reader = FeatureReader(StreamSpec(name="s", features=tuple(event["features"])))
            assert reader.read([block.encode()])[1] == {}, f"{page}: {block}"
        else:
            assert decode(Alert if "severity" in event else Label, block.encode()), f"{page}: {block}"


@pytest.mark.parametrize("page", GUIDES)
def test_every_piece_of_python_can_be_read(page: str) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", GUIDES)
def test_every_variable_and_metric_that_is_named_exists(page: str) -> None:
    settings = {f"ML_{field.name.upper()}" for field in fields(Settings)}
    settings |= {f"{name}_FILE" for name in settings} | {"ML_CONFIG"}
    unknown = {name for name in names(page, r"\bML_[A-Z_]+\b") if name not in settings and not name.endswith("_")}
    assert {name for name in unknown if not name.startswith("ML_SINK_")} == set()
    metrics = {metric.name for metric in METRICS}
    named = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names(page, r"\bml_[a-z_]+\b")}
    assert {name for name in named if name not in metrics and not name.endswith("_")} == set()


def test_the_table_of_topics_is_the_code_s() -> None:
    declared = topics_of(StreamSpec(name="<s>", features=("a",)))
    listed = re.findall(r"^\| `(<s>\.[a-z.]+)` \| ([^|]+) \| [^|]+ \| ([^|]+) \|$", text_of("README.md"), re.MULTILINE)
    kept = {
        "-1": "for ever",
        str(168 * 3_600_000): "`retention_hours`",
        str(4 * 168 * 3_600_000): "4 × `retention_hours`",
    }
    assert {name: (key.split(";")[0], time.removesuffix(" (a week)")) for name, key, time in listed} == {
        topic.name: (topic.key, kept[topic.config["retention.ms"]] if "retention.ms" in topic.config else "the newest")
        for topic in declared
    }


def test_every_alert_of_prometheus_has_a_runbook() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for rule in alerts:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors(ROOT / page), rule["alert"]
        assert anchor.replace("-", "") == rule["alert"].lower()


def test_every_page_can_be_found_from_the_index() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(links("docs/README.md"))
