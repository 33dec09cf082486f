"""What the demo shows: a screen of 80 columns and 24 lines on a terminal, plain lines anywhere else."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.demo.drift import SeenColumn, SeenReport, lasting
from app.demo.drift_outcome import day
from app.demo.feedback import VARIANTS
from app.demo.flights import LOCAL_TIME
from app.demo.follow import Tally
from app.demo.outcome import shown
from app.demo.retraining import Retraining

_WINDOW_S: Final = 5.0
_PLAIN_EVERY_S: Final = 2.0
_WIDTH: Final = 78
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_BOX_WIDTH: Final = 37
_CHART_LINES: Final = 4
_FEEDBACK_LINES: Final = 4
_REASONS_SHOWN: Final = 3
_DRIFTED_SHOWN: Final = 4
_WINDOWS_SHOWN: Final = 16
_AUC_RANGE: Final = (0.5, 0.8)  # what a spark line spans
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class DriftNow:
    """The newest judged window, and what it names, the worst first, with the event time since when it has done so."""

    report: SeenReport
    drifted: tuple[tuple[SeenColumn, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The demo at one moment. Rates and latency (p50, p99; empty without predictions) are of the last 5 seconds.

    Pending predictions wait for their label; pending labels wait for their prediction, or have not been read yet.
    `auc` holds the ROC AUC of each variant in the newest windows, oldest first; `mature` is how many windows are.
    `training` says that there is one, or how many there were; of its models `promotions` took over.
    `drift` is None until a window is judged.
    """

    events: int
    sent: int
    answered: int
    labels: int
    duplicates: int
    in_eps: float
    out_eps: float
    latency_ms: Mapping[str, float]
    scores: tuple[int, ...]
    dead_letters: Mapping[str, int]
    last_dead_letter: str
    model_id: str
    event_time_ms: int
    samples: int
    unmatched: int
    pending_labels: int
    pending_predictions: int
    label_delay_ms: float | None
    auc: Mapping[str, tuple[float | None, ...]]
    windows: int
    mature: int
    versions: int
    training: str
    promotions: int
    alerts: int
    drift: DriftNow | None


class Meter:
    """Makes snapshots of a tally, with rates over the last seconds of `clock`."""

    def __init__(self, tally: Tally, events: int, clock: Callable[[], float]) -> None:
        self._tally = tally
        self._events = events
        self._clock = clock
        self._marks = deque([(clock(), 0, 0, 0)])

    def snapshot(self, sent: int, pending: int = 0) -> Snapshot:
        """Return the state now, when the producer has sent `sent` features and `pending` predictions wait."""
        tally, feedback = self._tally, self._tally.feedback
        unmatched = feedback.unmatched.total()
        windows = [feedback.windows[number] for number in sorted(feedback.windows)]
        now = (self._clock(), sent, tally.answered, len(tally.latencies_ms))
        if not sent:
            self._marks.clear()  # the rates begin with the first record
        self._marks.append(now)
        while len(self._marks) > 2 and now[0] - self._marks[1][0] >= _WINDOW_S:
            self._marks.popleft()
        then = self._marks[0]
        seconds = max(now[0] - then[0], 1e-3)
        return Snapshot(
            events=self._events,
            sent=sent,
            answered=tally.answered,
            labels=tally.labels,
            duplicates=tally.duplicates,
            in_eps=(now[1] - then[1]) / seconds,
            out_eps=(now[2] - then[2]) / seconds,
            latency_ms=tally.latency_ms(then[3]),
            scores=tuple(tally.scores),
            dead_letters=dict(tally.dead_letters.most_common()),
            last_dead_letter=tally.last_dead_letter.message if tally.last_dead_letter else "",
            model_id=tally.model_id,
            event_time_ms=tally.event_time_ms,
            samples=feedback.samples,
            unmatched=unmatched,
            pending_labels=max(tally.labels - feedback.samples - unmatched, 0),
            pending_predictions=pending,
            label_delay_ms=feedback.label_delay_ms,
            auc={name: tuple(window.auc(name) for window in windows[-_WINDOWS_SHOWN:]) for name in VARIANTS},
            windows=len(windows),
            mature=sum(window.mature for window in windows),
            versions=len(feedback.versions),
            training=_training(tally.retraining),
            promotions=len(tally.retraining.promotions),
            alerts=tally.drift.alerts.total(),
            drift=DriftNow(reports[-1], tuple(lasting(reports))) if (reports := tally.drift.reports) else None,
        )


class View(Protocol):
    """Somewhere to show the demo. `say` is for sentences, `show` for the state, several times a second."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def say(self, sentence: str) -> None: ...
    def show(self, snapshot: Snapshot) -> None: ...


class ScreenView:
    """A screen on a terminal, drawn anew again and again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Write a line above the screen."""
        self._console.print(sentence, highlight=False)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the screen anew."""
        self._live.start()  # the first time only
        self._live.update(screen(snapshot), refresh=True)


class PlainView:
    """Lines for logs and pipes; the state at most every two seconds."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._next_s = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, sentence: str) -> None:
        """Write a line."""
        self._write(sentence)

    def show(self, snapshot: Snapshot) -> None:
        """Write the state as one line, if it is time."""
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + _PLAIN_EVERY_S
            self._write(line(snapshot))


def line(snapshot: Snapshot) -> str:
    """Return the state in one line."""
    auc = ", ".join(f"{variant} {shown(_newest(values))}" for variant, values in snapshot.auc.items())
    return (
        f"{snapshot.answered:,} of {snapshot.events:,} events"
        f" | {_event_date(snapshot)} | {snapshot.out_eps:,.0f}/s | {_latency(snapshot)}"
        f" | {sum(snapshot.dead_letters.values()):,} dead letters | {snapshot.labels:,} labels"
        f" | {snapshot.samples:,} samples | AUC {auc} | drift {_drift_line(snapshot.drift)}"
        f" | {snapshot.training}, promoted {snapshot.promotions}"
    )


def screen(snapshot: Snapshot) -> RenderableType:
    """Return the state as a screen of 80 columns and less than 24 lines."""
    bar = ProgressBar(total=max(snapshot.events, 1), completed=snapshot.answered, width=_WIDTH - 34)
    progress = Table.grid(padding=(0, 1))
    progress.add_row(bar, f"{snapshot.answered:>9,} / {snapshot.events:<9,}", f"[bold]{_event_date(snapshot)}")
    numbers = Table.grid(padding=(0, 2))
    for left, right in (
        (f"in      {snapshot.in_eps:>9,.0f} events/s", _latency(snapshot)),
        (f"out     {snapshot.out_eps:>9,.0f} events/s", f"duplicates {snapshot.duplicates:,}"),
        (f"labels  {snapshot.labels:>9,}", f"model {snapshot.model_id or '-'}"),
    ):
        numbers.add_row(f"{left:<38}", Text(right, overflow="ellipsis", no_wrap=True))
    boxes = Table.grid(padding=(0, 1))
    boxes.add_row(
        Panel(Text(chart(snapshot.scores)), title="scores", width=_BOX_WIDTH, height=_CHART_LINES + 3),
        Panel(_dead_letters(snapshot), title="dead letters", width=_BOX_WIDTH, height=_CHART_LINES + 3),
    )
    boxes.add_row(
        Panel(_labels(snapshot), title="labels come back", width=_BOX_WIDTH, height=_FEEDBACK_LINES + 2),
        Panel(_learning(snapshot), title="ROC AUC by window", width=_BOX_WIDTH, height=_FEEDBACK_LINES + 2),
    )
    inside = Group(progress, numbers, boxes, _drift(snapshot.drift))
    return Panel(inside, title="penstock · flights from Newark, 2013", width=_WIDTH + 2)


def chart(counts: tuple[int, ...], lines: int = _CHART_LINES) -> str:
    """Return a bar chart of `counts`, each a bar two characters wide, on an axis from 0 to 1."""
    highest = max(*counts, 1)
    eighths = [-(-count * lines * 8 // highest) for count in counts]  # rounded up: what there is can be seen
    rows = [
        "".join(2 * _BLOCKS[min(max(height - level * 8, 0), 8)] for height in eighths)
        for level in reversed(range(lines))
    ]
    return "\n".join([*rows, f"0{'1':>{2 * len(counts) - 1}}"])


def _dead_letters(snapshot: Snapshot) -> RenderableType:
    reasons = list(snapshot.dead_letters.items())[:_REASONS_SHOWN]
    counts = "\n".join(f"{count:>6,} {reason}" for reason, count in reasons) or "none yet"
    return Group(counts, Text(snapshot.last_dead_letter, style="dim", no_wrap=False, overflow="ellipsis"))


def spark(values: Sequence[float | None]) -> str:
    """Return one block per figure, from the lowest at 0.5 to the highest at 0.8; a dot where there is none."""
    low, high = _AUC_RANGE
    steps = len(_BLOCKS) - 2
    heights = [None if value is None else round((value - low) / (high - low) * steps) for value in values]
    return "".join("·" if height is None else _BLOCKS[1 + min(max(height, 0), steps)] for height in heights)


def _labels(snapshot: Snapshot) -> RenderableType:
    delay = "-" if snapshot.label_delay_ms is None else f"{snapshot.label_delay_ms / _HOUR_MS:.1f} h"
    return Text(
        f"{snapshot.samples:>7,} samples, after {delay}\n"
        f"{snapshot.pending_predictions:>7,} pending predictions\n"
        f"{snapshot.pending_labels:>7,} pending labels\n"
        f"{snapshot.unmatched:>7,} unmatched labels",
        no_wrap=True,
        overflow="ellipsis",
    )


def _learning(snapshot: Snapshot) -> RenderableType:
    rows = "".join(
        f"{variant:<9}{shown(_newest(values)):<6}{spark(values)}\n" for variant, values in snapshot.auc.items()
    )
    return Text(
        f"{rows}{snapshot.windows:,} windows, {snapshot.mature:,} mature; {snapshot.alerts:,} alerts\n"
        f"{snapshot.versions:,} models, {snapshot.training}, promoted {snapshot.promotions}",
        no_wrap=True,
        overflow="ellipsis",
    )


def _training(retraining: Retraining) -> str:
    if retraining.now is not None:
        return "training…"
    return f"trained {sum(run.outcome != 'skipped' for run in retraining.ended)}"


def _drift(now: DriftNow | None) -> RenderableType:
    """Return the newest window's drift: a panel of two lines, two columns of the window on each."""
    if now is None:
        return Panel("no window is complete yet\n", title="drift", width=2 * _BOX_WIDTH + 1)
    cells = [
        f"{column.name:<18} {_far(column):<9} {day(since_ms)}" for column, since_ms in now.drifted[:_DRIFTED_SHOWN]
    ]
    cells += [""] * (_DRIFTED_SHOWN - len(cells))
    lines = (f"{left:<36}{right}" for left, right in zip(cells[::2], cells[1::2], strict=True))
    said = f"{now.report.severity}: {now.report.recommendation}" if now.drifted else "none"
    return Panel(
        Text("\n".join(lines), no_wrap=True, overflow="ellipsis"),
        title=f"drift to {day(now.report.to_time_ms)} · {said} · how far, since when",
        width=2 * _BOX_WIDTH + 1,
    )


def _drift_line(now: DriftNow | None) -> str:
    if now is None:
        return "-"
    return ", ".join(f"{column.name} {_far(column)}" for column, _ in now.drifted) or "none"


def _far(column: SeenColumn) -> str:
    return "-" if column.psi is None else f"PSI {column.psi:.2f}"


def _newest(values: Sequence[float | None]) -> float | None:
    return values[-1] if values else None


def _latency(snapshot: Snapshot) -> str:
    if not snapshot.latency_ms:
        return "latency -"
    return f"latency p50 {snapshot.latency_ms['p50']:.1f} ms, p99 {snapshot.latency_ms['p99']:.1f} ms"


def _event_date(snapshot: Snapshot) -> str:
    when = datetime.fromtimestamp(snapshot.event_time_ms / 1000, LOCAL_TIME)
    return f"{when:%d %b %Y}" if snapshot.event_time_ms else "-"
