"""Evaluation as one deterministic fold over the samples of a stream."""

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np

from ml.evaluation.columns import Columns
from ml.evaluation.detector import DetectorState, ErrorDetector
from ml.evaluation.gates import Finding, GateRules, Gates, GatesState
from ml.evaluation.histogram import Ints
from ml.evaluation.tally import Scoring
from ml.evaluation.window import CHAMPION, Measured
from ml.evaluation.windows import Heads, Look, WindowRules, WindowsState, windows_of

_DAWN_MS = -(2**53)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one window, with event times in [from_ms, to_ms)."""

    number: int
    from_ms: int
    to_ms: int
    mature: bool
    variants: list[Measured]


@dataclass(frozen=True, slots=True)
class Folded:
    """What a batch gave, in the order of the log, and how many of its samples no window counts, by reason."""

    found: list[Report | Finding]
    missed: Counter[str]


class EvaluatorState(msgspec.Struct, frozen=True, array_like=True):
    """An Evaluator at rest."""

    event_head_ms: int
    label_head_ms: int
    windows: WindowsState
    gates: GatesState
    detector: DetectorState


class Evaluator:
    """Folds samples into reports and findings. What it gives does not depend on how the samples were cut into batches.

    Samples of revision 0 are events; a later revision replaces the label of its event. The detector sees the champion's
    first labels only, in the order of the log. An event time far in the future closes windows early: times are
    believed, as they are by the join that let them through.
    """

    def __init__(self, scoring: Scoring, windows: WindowRules, gates: GateRules) -> None:
        self._scoring = scoring
        self._kind = "time" if windows.span_ms else "count"
        self._windows = windows_of(windows, scoring)
        self._gates = Gates(gates)
        self._detector = ErrorDetector()
        self._event_head_ms = self._label_head_ms = _DAWN_MS

    @property
    def label_head_ms(self) -> int | None:
        """The newest label time of all samples so far; None before the first."""
        return None if self._label_head_ms == _DAWN_MS else self._label_head_ms

    def fold(self, samples: Columns) -> Folded:
        """Count samples, at least one, at most some 100,000 at once; about 2 µs each with two variants."""
        heads = Heads(
            np.maximum(np.maximum.accumulate(samples.event_times_ms), self._event_head_ms),
            np.maximum(np.maximum.accumulate(samples.label_times_ms), self._label_head_ms),
            np.cumsum(samples.scores()),
        )
        folded = Folded([], Counter())
        start = 0
        while start < len(samples):
            stop = self._windows.stop(samples, heads, start)
            stretch = samples.take(np.arange(start, stop))
            folded.found.extend(self._detect(stretch, heads, start))
            folded.missed.update(self._windows.place(stretch))
            self._event_head_ms, self._label_head_ms = int(heads.event_ms[stop - 1]), int(heads.label_ms[stop - 1])
            for look in self._windows.turn(self._event_head_ms, self._label_head_ms):
                folded.found.extend(self._report(look))
            start = stop
        return folded

    def _report(self, look: Look) -> list[Report | Finding]:
        """Return a window's report, and what its gates say when it is mature."""
        window = look.window
        report = Report(window.number, window.from_ms, window.to_ms, look.mature, window.figures())
        if not look.mature:
            return [report]
        name, span_ms = f"{self._kind} {window.number}", (window.from_ms, window.to_ms)
        findings = [
            finding
            for measured in report.variants
            for finding in self._gates.judge(measured, name, span_ms, self._event_head_ms, self._label_head_ms)
        ]
        return [report, *findings]

    def _detect(self, samples: Columns, heads: Heads, start: int) -> list[Finding]:
        """Return where the champion's error rose; `start` is the place of the first sample among the heads."""
        champion = samples.variants.get(CHAMPION)
        if champion is None:
            return []
        fresh = samples.revisions[champion.rows] == 0
        rows: Ints = champion.rows[fresh]
        errors = self._scoring.predicted(champion.scores[fresh]) != samples.labels[rows]
        models = champion.models[fresh]
        findings = []
        for rise in self._detector.update(errors):
            row = int(rows[rise.row])
            event_head_ms = int(heads.event_ms[start + row])
            if self._gates.may_tell("error_drift", event_head_ms):
                findings.append(
                    Finding(
                        kind="error_drift",
                        variant=CHAMPION,
                        model_id=models[rise.row],
                        window=f"offset {samples.offsets[row]}",
                        value=rise.after,
                        reference=rise.before,
                        threshold=rise.before,
                        n=rise.n,
                        from_ms=int(samples.event_times_ms[row]),
                        to_ms=event_head_ms + 1,
                        time_ms=int(heads.label_ms[start + row]),
                    )
                )
        return findings

    def dump(self) -> bytes:
        """Return the state. A window that waits unchanged is packed only once.

        The closed windows take at most 2 MB, the open one at most some 80 kB for each variant, or 300 kB when the
        stream has several classes.
        """
        state = EvaluatorState(
            self._event_head_ms,
            self._label_head_ms,
            self._windows.dump(),
            self._gates.dump(),
            self._detector.dump(),
        )
        return msgspec.msgpack.encode(state)

    def load(self, dumped: bytes) -> None:
        """Take over what an Evaluator of the same rules dumped. Raises ValueError or ModelPayloadInvalid otherwise."""
        state = msgspec.msgpack.decode(dumped, type=EvaluatorState)
        self._event_head_ms, self._label_head_ms = state.event_head_ms, state.label_head_ms
        self._windows.load(state.windows)
        self._gates.load(state.gates)
        self._detector.load(state.detector)
