"""Windows of event time whose samples come late: what their state takes, and which of them give way."""

from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from ml.evaluation import windows
from ml.evaluation.columns import Columns, Scored
from ml.evaluation.evaluator import Evaluator, EvaluatorState, Report
from ml.evaluation.gates import GateRules
from ml.evaluation.histogram import Ints
from ml.evaluation.tally import Scoring
from ml.evaluation.window import Window
from ml.evaluation.windows import NO_ROOM, WindowRules

SPAN, WINDOWS = 1_000, 40
ROOM = 40_000
BINARY, CLASSES = Scoring("binary", 2, 0.5), Scoring("multiclass", 30, 0.5)
GATES = GateRules(
    min_samples=10**9,
    accuracy_drop=1.0,
    reference_accuracy=None,
    reference_windows=1,
    max_false_positive_rate=None,
    max_latency_ms=None,
    cooldown_ms=0,
)


def _columns(scoring: Scoring, numbers: Ints, first: int, shadows: int) -> Columns:
    """Return a sample of each of these windows, all different; their labels come at once."""
    rng, n = np.random.default_rng(first), len(numbers)
    times_ms, zeros = numbers * SPAN + rng.integers(0, SPAN, n), np.zeros(n, dtype=np.int64)
    rows = np.arange(n)

    def scored(name: str) -> Scored:
        scores = rng.random(n) if scoring is BINARY else rng.dirichlet(np.ones(scoring.classes), n)
        return Scored(rows, scores, np.full(n, name, dtype=object))

    return Columns(
        offsets=first + rows,
        events=first + rows,
        revisions=zeros,
        event_times_ms=times_ms,
        label_times_ms=np.full(n, WINDOWS * SPAN),
        latencies_ms=rng.integers(0, 10**6, n),
        labels=rng.integers(0, scoring.classes, n),
        replaced=zeros - 1,
        assumed=zeros == 1,
        variants={name: scored(name) for name in ("champion", *(f"shadow{i}" for i in range(shadows)))},
    )


def _late(scoring: Scoring, shadows: int, n: int = 6_000) -> Columns:
    """Return a log in which all windows begin one after the other, and then grow by samples that come late."""
    late = np.random.default_rng(1).integers(0, WINDOWS, n)
    return _columns(scoring, np.concatenate([np.arange(WINDOWS + 1), late]), 0, shadows)


def _evaluator(scoring: Scoring) -> Evaluator:
    return Evaluator(scoring, WindowRules(samples=1, span_ms=SPAN, ripens_ms=10**6), GATES)


def _pieces(log: Columns, size: int) -> Iterable[Columns]:
    for start in range(0, len(log), size):
        yield log.take(np.arange(start, min(start + size, len(log))))


def _closed_bytes(dumped: bytes) -> int:
    return sum(map(len, msgspec.msgpack.decode(dumped, type=EvaluatorState).windows.windows[:-1]))


@pytest.mark.parametrize(("scoring", "shadows"), [(BINARY, 0), (BINARY, 8), (CLASSES, 1)])
def test_windows_that_grow_never_take_more_than_their_room(
    scoring: Scoring, shadows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING_BYTES", ROOM)
    evaluator, missed, largest = _evaluator(scoring), Counter[str](), 0
    for piece in _pieces(_late(scoring, shadows), 7):
        missed += evaluator.fold(piece).missed
        largest = max(largest, _closed_bytes(evaluator.dump()))
    assert ROOM / 8 < largest <= ROOM
    assert set(missed) == {NO_ROOM}


def test_the_oldest_windows_keep_their_room_and_the_others_stay_at_their_first_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING_BYTES", ROOM)
    evaluator, log = _evaluator(BINARY), _late(BINARY, 0)
    looks = evaluator.fold(log).found
    assert [look.number for look in looks if isinstance(look, Report)] == list(range(WINDOWS))
    end = _columns(BINARY, np.array([WINDOWS + 1]), 99_999, 0)
    end.label_times_ms[:] = 10**7
    mature = [look for look in evaluator.fold(end).found if isinstance(look, Report) and look.mature]
    numbers = [look.number for look in mature]
    assert numbers == [*range(len(numbers) - 1), WINDOWS]
    assert 1 < len(numbers) < WINDOWS
    for look in mature[:-1]:
        assert look.variants[0].figures.n == np.count_nonzero(log.event_times_ms // SPAN == look.number)


def test_a_late_window_that_is_given_up_before_anybody_looked_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING_BYTES", ROOM)
    evaluator = _evaluator(BINARY)
    evaluator.fold(_columns(BINARY, np.array([WINDOWS]), 0, 0))
    found = evaluator.fold(_columns(BINARY, np.repeat(np.arange(WINDOWS)[::-1], 50), 1, 0)).found
    looks = [(look.number, look.mature) for look in found if isinstance(look, Report)]
    assert looks
    assert len(set(looks)) == len(looks)
    assert not any(mature for _, mature in looks)


@pytest.mark.parametrize("size", [1, 13, 200])
def test_what_gives_way_does_not_depend_on_batches_or_restarts(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING_BYTES", ROOM // 2)
    log = _late(BINARY, 1, 400)
    whole, cut = _evaluator(BINARY), _evaluator(BINARY)
    expected = whole.fold(log)
    found, missed = [], Counter[str]()
    for piece in _pieces(log, size):
        dumped, cut = cut.dump(), _evaluator(BINARY)
        cut.load(dumped)
        folded = cut.fold(piece)
        found += folded.found
        missed += folded.missed
    assert found == expected.found
    assert missed == expected.missed
    assert missed[NO_ROOM] > 100
    assert cut.dump() == whole.dump()


def test_ranges_of_windows_that_gave_way_are_never_more_than_the_windows_that_stay_and_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "MAX_WAITING_BYTES", 10_000)
    evaluator = Evaluator(BINARY, WindowRules(samples=1, span_ms=SPAN, ripens_ms=20 * SPAN), GATES)
    rng = np.random.default_rng(3)
    for number in range(1, 400):
        numbers = np.append(number, rng.integers(max(0, number - 15), number, rng.integers(0, 12)))
        piece = _columns(BINARY, numbers, 100 * number, 0)
        piece.label_times_ms[:] = piece.event_times_ms
        evaluator.fold(piece)
        state = msgspec.msgpack.decode(evaluator.dump(), type=EvaluatorState).windows
        starts = [start for start, _ in state.given_up]
        assert all(stop <= start for (_, stop), start in zip(state.given_up, starts[1:], strict=False))
        assert len(starts) <= len(state.windows)
    assert number > 300
    assert starts


def test_a_window_of_a_state_from_before_there_were_variants_has_the_champion_s_events() -> None:
    made = Window(0, BINARY)
    made.add(_columns(BINARY, np.zeros(7, dtype=np.int64), 0, 0))
    dumped = msgspec.msgpack.decode(made.dump())
    for state in (dumped, dumped[:-1]):  # the count came last
        assert Window.restored(BINARY, msgspec.msgpack.encode(state), grows=True).n == 7
