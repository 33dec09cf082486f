"""Writes the tables of docs/capacity.md from what the benchmarks measured.

    python -m benchmarks.capacity_page docs/capacity.md scaling.json streams.json capacity.json bytes.json

Each file is what `--json` of the benchmark of that name wrote; any of them may be left out. A table stands between
`<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Result = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; None becomes a dash, and large numbers get separators."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def capacity_table(result: Result) -> str:
    """Return what one core scores, by shape of the model."""
    head = (
        "features",
        "model",
        "event, bytes",
        "µs per event",
        "events/s at most",
        "µs of the broker",
        "with producer and reader",
        "model, MB",
    )
    rows = [
        (
            shape["features"],
            f"{shape['trees']} trees" if shape["trees"] else "logistic regression",
            shape["event_bytes"],
            shape["cpu_us"],
            round(1e6 / shape["cpu_us"], -3),
            shape["broker_cpu_us"],
            shape["broker_all_us"],
            shape["model_memory_mb"],
        )
        for shape in result["shapes"]
    ]
    return table(head, rows)


def scaling_table(result: Result) -> str:
    """Return how fast groups of workers are."""
    head = ("cores, and workers", "events/s", "times", "µs per event", "µs of the broker", "cores in use", "MB of one")
    names = ("eps", "times", "cpu_us", "broker_cpu_us", "cores", "peak_mb")
    rows = [
        (name.replace("-", ", "), *(figures[each] for each in names)) for name, figures in result["summary"].items()
    ]
    return table(head, rows)


def streams_table(result: Result) -> str:
    """Return what a worker with many streams uses."""
    columns = {
        "roles": "roles",
        "streams": "streams",
        "startup_s": "ready after, s",
        "stop_s": "stops in, s",
        "rss_mb": "MB",
        "sockets": "sockets",
        "idle_cpu_percent": "idle, % of a core",
        "idle_broker_cpu_percent": "broker idle, %",
        "cpu_us": "µs per event",
        "broker_cpu_us": "µs of the broker",
        "commits_per_s": "commits/s",
        "p50_ms": "p50, ms",
        "p99_ms": "p99, ms",
        "scrape_ms": "/metrics, ms",
    }
    return table([*columns.values()], [[step[name] for name in columns] for step in result["steps"]])


def bytes_table(result: Result) -> str:
    """Return the bytes per event of each topic, with each codec."""
    found = result["bytes_per_event"]
    topics = list(dict.fromkeys(topic for sizes in found.values() for topic in sizes))
    rows = [(f"`<s>.{topic}`", *(sizes.get(topic, 0.0) for sizes in found.values())) for topic in topics]
    total = ("all", *(round(sum(sizes.values())) for sizes in found.values()))
    return table(("topic", *(f"bytes, {codec}" for codec in found)), [*rows, total])


TABLES: Final[Mapping[str, tuple[str, Callable[[Result], str]]]] = {
    "capacity": ("shapes", capacity_table),
    "scaling": ("turns", scaling_table),
    "streams": ("steps", streams_table),
    "bytes": ("bytes_per_event", bytes_table),
}
"""The tables by the names of their marks; each with the key by which its benchmark's result is known."""


def with_table(page: str, name: str, text: str) -> str:
    """Return `page` with `text` between the marks of this name. Raises ValueError when it has no such marks."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"the page has no marks {begin.strip()} and {end}")
    return f"{before}{begin}{text}{end}{after}"


def main(page_file: str, *result_files: str) -> int:
    """Write the tables; return the exit code: 2, and nothing is written, when a file is of another benchmark."""
    page = Path(page_file).read_text(encoding="utf-8")
    for file in result_files:
        result: Result = json.loads(Path(file).read_text(encoding="utf-8"))
        name = next((name for name, (key, _) in TABLES.items() if key in result), None)
        if name is None:
            print(f"{file} is of no benchmark that this page shows", file=sys.stderr)
            return 2
        page = with_table(page, name, TABLES[name][1](result))
    Path(page_file).write_text(page, encoding="utf-8")
    return 0


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | int):
        return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
