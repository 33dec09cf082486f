"""A training run while one watches: a bar for each phase on a terminal, plain lines anywhere else."""

from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.text import printable
from app.training_report import event_line
from schemas.runs import Phase, TrainingEvent

_WORDS: Final[dict[Phase, str]] = {
    "waiting": "waiting",
    "read": "reading samples",
    "search": "searching",
    "validate": "validating",
    "fit": "fitting",
    "evaluate": "evaluating",
    "record": "recording",
    "ended": "ended",
}
_STEPS: Final = 4  # lines for each phase of which the share is known


class View(Protocol):
    """Shows events as they come. A context manager: what it draws is left in order when it is left."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: TrainingEvent) -> None:
        """Show what a run is at."""

    def say(self, sentence: str) -> None:
        """Print a sentence."""


def view_on(console: Console) -> View:
    """Return what fits the console."""
    return Bars(console) if console.is_terminal else Lines(console)


class Lines:
    """A line for each phase, and for each quarter of one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: tuple[str, int, Phase, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""

    def show(self, event: TrainingEvent) -> None:
        """Print a line, if there is something new to tell."""
        place = event.run_id, event.attempt, event.phase, int((event.share or 0.0) * _STEPS)
        if place == self._said:
            return
        self._said = place
        self.say(event_line(event))

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)


class Bars:
    """A bar for each phase of each attempt; it moves to and fro while the share is not known."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[about]}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[share]:>4}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
        )
        self._now: tuple[str, int, Phase] | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: TrainingEvent) -> None:
        """Move the bar of the event's phase, or begin one and end the one before."""
        place = event.run_id, event.attempt, event.phase
        if place != self._now:
            self._finish()
            if self._now is None or event.run_id != self._now[0]:
                self.say(f"{event.run_id}, asked for by {', '.join(event.reasons)}")
            self._now, self._bar = place, self._begin(event) if event.outcome is None else None
        if self._bar is not None:
            self._progress.update(self._bar, message=printable(event.message))
            if event.share is not None:
                self._progress.update(self._bar, total=1.0, completed=event.share, share=f"{event.share:.0%}")

    def _begin(self, event: TrainingEvent) -> TaskID:
        again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        about = f"{_WORDS[event.phase]}{again}"
        return self._progress.add_task("", total=None, about=f"{about:<27}", share="", message="")

    def _finish(self) -> None:
        if self._bar is not None:
            self._progress.update(self._bar, total=1.0, completed=1.0, share="")
            self._progress.stop_task(self._bar)

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self._progress.console.print(Text(printable(sentence)))
