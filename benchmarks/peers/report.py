"""The result of a run for readers: a table in Markdown and a picture."""

import io
from collections.abc import Mapping, Sequence
from math import floor, log10
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- peers:begin -->"
END: Final = "<!-- peers:end -->"
_OURS: Final = "#1f5fa8"
_THEIRS: Final = "#b9b9b9"
_STYLE: Final = {
    "svg.hashsalt": "penstock",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
_RATE_COLORS: Final = {"1000": ("#1f5fa8", "#b9b9b9"), "10000": ("#6f9fd8", "#dedede")}

Result = Mapping[str, Any]


def write_table(result: Result, file: Path) -> None:
    """Write the table into `file`: between the markers where it has them, else as all of it."""
    text = f"{BEGIN}\n{table(result)}{END}"
    if file.exists():
        before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and end:
            text = before + text + after
    file.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def table(result: Result) -> str:
    """Return a row for each contestant, the fastest first, then the goals."""
    rates = _rates(result)
    heads = ["", "events/s", "spread", "CPU µs/event", "peak MB", "start s"]
    heads += [f"p50 / p99 ms at {int(rate):,}/s" for rate in rates]
    rows = [_row(name, figures, rates) for name, figures in _ordered(result)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    goals = [["goal", "measured", "met"], ["---", "---:", "---"]]
    goals += [[text, _number(goal["figure"], 2), _met(goal["met"])] for text, goal in result["goals"].items()]
    blocks = ["\n".join(f"| {' | '.join(cells)} |" for cells in block) for block in (lines, goals)]
    return "\n\n".join([*blocks, _where(result)]) + "\n"


def plot(result: Result) -> bytes:
    """Return an SVG: events per second, and the 99th percentile of latency at each rate. Both axes are logarithmic."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        ordered = _ordered(result)[::-1]
        figure = Figure(figsize=(9.0, 0.6 + 0.42 * len(ordered)), layout="constrained", facecolor="white")
        speed, latency = figure.subplots(1, 2, sharey=True)
        _draw_speed(speed, ordered)
        _draw_latency(latency, ordered, _rates(result))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _draw_speed(axes: Any, ordered: list[tuple[str, Any]]) -> None:
    eps = [figures.get("eps", 0) for _, figures in ordered]
    bars = axes.barh(range(len(eps)), eps, color=[_color(name) for name, _ in ordered], height=0.7)
    axes.bar_label(bars, [f"{each:,.0f}" for each in eps], padding=3)
    axes.set_yticks(range(len(eps)), [name for name, _ in ordered], parse_math=False)
    axes.set(xscale="log", xlabel="events/s on one core (log)", title="Throughput")
    _from_a_power_of_ten(axes, eps)


def _draw_latency(axes: Any, ordered: list[tuple[str, Any]], rates: list[str]) -> None:
    height = 0.8 / max(1, len(rates))
    all_ms: list[float | None] = []
    for place, rate in enumerate(rates):
        centres = [row + height * ((len(rates) - 1) / 2 - place) for row in range(len(ordered))]
        p99_ms = [figures["latency"].get(rate, {}).get("p99_ms") for _, figures in ordered]
        all_ms += p99_ms
        ours, theirs = _RATE_COLORS.get(rate, (_OURS, _THEIRS))
        colors = [ours if name.startswith("penstock") else theirs for name, _ in ordered]
        widths = [float("nan") if each is None else each for each in p99_ms]
        bars = axes.barh(centres, widths, color=colors, height=height * 0.9)
        axes.bar_label(bars, ["" if each is None else f"{each:,.1f}" for each in p99_ms], padding=3, fontsize=7)
        for centre, each in zip(centres, p99_ms, strict=True):
            if each is None:
                axes.text(0.02, centre, "fell behind", transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    above = " above ".join(f"{int(rate):,}" for rate in rates)
    axes.set(xscale="log", xlabel="p99 ms (log)", title=f"Latency at {above} events/s")
    _from_a_power_of_ten(axes, all_ms)


def _from_a_power_of_ten(axes: Any, values: Sequence[float | None]) -> None:
    """Begin the axis below the smallest value, where a bar of length zero would be on no logarithmic axis."""
    known = [value for value in values if value]
    axes.margins(x=0.2)
    if known:
        axes.set_xlim(left=10 ** floor(log10(0.9 * min(known))))


def _color(name: str) -> str:
    return _OURS if name.startswith("penstock") else _THEIRS


def _ordered(result: Result) -> list[tuple[str, Any]]:
    return sorted(result["contestants"].items(), key=lambda item: -item[1].get("eps", 0))


def _rates(result: Result) -> list[str]:
    return sorted({rate for each in result["contestants"].values() for rate in each["latency"]}, key=int)


def _row(name: str, figures: Mapping[str, Any], rates: list[str]) -> list[str]:
    low, high = figures.get("eps_spread", (None, None))
    called = f"{name} (stopped early)" if figures.get("partial") else name
    cells = [called, _number(figures.get("eps")), f"{_number(low)} … {_number(high)}"]
    cells += [_number(figures.get("cpu_us"), 1), _number(figures.get("peak_mb")), _number(figures.get("startup_s"), 1)]
    for rate in rates:
        found = figures["latency"].get(rate, {})
        cells.append(found.get("note") or f"{_number(found.get('p50_ms'), 1)} / {_number(found.get('p99_ms'), 1)}")
    return cells


def _where(result: Result) -> str:
    """Return what was measured how often, the machine and the versions, as a sentence."""
    machine = result["machine"]
    versions = {name: each for figures in result["contestants"].values() for name, each in figures["versions"].items()}
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    where = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    turns = next(iter(result["runs"].values()))
    often = f"{len(turns['throughput'])} turns"
    late = [each["late_ms"] for figures in result["contestants"].values() for each in figures["latency"].values()]
    if late:
        paced = len(turns["latency"]) // len(_rates(result))
        often += f", {paced} of latency with a producer late by {max(late):.1f} ms (p99)"
    return f"{result['events']:,} events; {often}; {where}; {told}."


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _met(met: bool | None) -> str:
    return "not measured" if met is None else "yes" if met else "no"
