"""What the demo shows."""

import io
from dataclasses import dataclass

import msgspec
import pytest
from rich.console import Console

from app.demo.drift import SeenColumn, SeenReport
from app.demo.feedback import Feedback
from app.demo.follow import SCORE_BINS, Tally
from app.demo.view import DriftNow, Meter, PlainView, ScreenView, Snapshot, chart, line, screen, spark
from topics import StreamTopics

TOPICS = StreamTopics("flights")
JUNE_MS = 1_371_000_000_000  # 11 June 2013, 21:20 in New York
DAY_MS = 86_400_000


def column(name: str, psi: float | None, severity: str = "medium") -> SeenColumn:
    return SeenColumn(name=name, judged=True, severity=severity, reason="moved", psi=psi, wasserstein_scaled=0.4)


DRIFTED = (
    column("distance_miles", 0.24, "high"),
    column("departures_in_hour", 0.381),
    column("scheduled_minutes", None),
    column("flight_number", 12.3),
    column("carrier", 0.1),
)
SNAPSHOT = Snapshot(
    events=110_942,
    sent=30_000,
    answered=29_800,
    labels=29_111,
    duplicates=0,
    in_eps=3_001.2,
    out_eps=2_998.0,
    latency_ms={"p50": 8.14, "p99": 22.4},
    scores=(0, 7, *[1] * (SCORE_BINS - 3), 3),
    dead_letters={"invalid_field": 20, "malformed_json": 11, "empty": 10, "out_of_range": 10, "wrong_key": 2},
    last_dead_letter="Expected `float | null`, got `str` - at `$.features.distance_miles` " * 4,
    model_id="flights-20250101T101010-" + "a" * 40,
    event_time_ms=1_364_913_660_000,
    samples=28_950,
    unmatched=57,
    pending_labels=104,
    pending_predictions=412,
    label_delay_ms=9_600_000.0,
    auc={"champion": (0.66, None, 0.71, 0.642), "online": (0.48, 0.55, 0.62, 0.607)},
    windows=14,
    mature=13,
    versions=58,
    training="training…",
    promotions=2,
    alerts=3,
    drift=DriftNow(
        SeenReport(
            number=22,
            baseline="january",
            from_time_ms=JUNE_MS,
            to_time_ms=JUNE_MS + 5 * DAY_MS,
            n=2_000,
            severity="critical",
            features=DRIFTED,
            predictions=(),
            recommendation="act now",
        ),
        tuple((found, JUNE_MS - 30 * DAY_MS * place) for place, found in enumerate(DRIFTED)),
    ),
)
NOTHING_YET = Snapshot(
    events=10,
    sent=0,
    answered=0,
    labels=0,
    duplicates=0,
    in_eps=0,
    out_eps=0,
    latency_ms={},
    scores=(0,) * SCORE_BINS,
    dead_letters={},
    last_dead_letter="",
    model_id="",
    event_time_ms=0,
    samples=0,
    unmatched=0,
    pending_labels=0,
    pending_predictions=0,
    label_delay_ms=None,
    auc={"champion": (), "online": ()},
    windows=0,
    mature=0,
    versions=0,
    training="trained 0",
    promotions=0,
    alerts=0,
    drift=None,
)


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Record:
    value: bytes
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None


def window(number: int, *, auc: float, mature: bool) -> Record:
    """Return a record of `<s>.performance` in which the champion alone has figures."""
    variants = [{"variant": "champion", "roc_auc": auc}]
    return Record(msgspec.json.encode({"number": number, "mature": mature, "variants": variants}))


def drawn(snapshot: Snapshot) -> str:
    console = Console(width=80, height=24, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(screen(snapshot))
    return capture.get()


@pytest.mark.parametrize("snapshot", [SNAPSHOT, NOTHING_YET])
def test_the_screen_fits_80_columns_and_24_lines(snapshot: Snapshot) -> None:
    lines = drawn(snapshot).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 24


def test_the_screen_shows_rates_latency_labels_dead_letters_and_the_date() -> None:
    text = drawn(SNAPSHOT)
    for shown in ("3,001 events/s", "2,998 events/s", "p50 8.1 ms, p99 22.4 ms", "29,111", "20 invalid_field"):
        assert shown in text
    assert "02 Apr 2013" in text
    assert "29,800 / 110,942" in text


def test_the_screen_shows_what_comes_back_of_the_labels() -> None:
    text = drawn(SNAPSHOT)
    for shown in (
        "28,950 samples, after 2.7 h",
        "412 pending predictions",
        "104 pending labels",
        "57 unmatched labels",
        "champion 0.642 ▅·▆▄",
        "online   0.607 ▁▂▄▃",
        "14 windows, 13 mature; 3 alerts",
        "58 models, training…, promoted 2",
    ):
        assert shown in text


def test_the_screen_shows_what_has_drifted_how_far_and_since_when() -> None:
    text = drawn(SNAPSHOT)
    for shown in (
        "drift to 16 Jun · critical: act now · how far, since when",
        "distance_miles     PSI 0.24  11 Jun departures_in_hour PSI 0.38  12 May",
        "scheduled_minutes  -         12 Apr flight_number      PSI 12.30 13 Mar",
    ):
        assert shown in text
    assert "no window is complete yet" in drawn(NOTHING_YET)


def test_a_spark_line_spans_a_half_to_eight_tenths_and_has_dots_where_nothing_is_known() -> None:
    assert spark((0.2, 0.5, 0.65, 0.8, 0.99, None)) == "▁▁▅██·"


def test_a_snapshot_tells_the_newest_windows_and_what_waits() -> None:
    tally = Tally(TOPICS, {}, Feedback(TOPICS, {}))
    for number in range(20):
        tally.take(TOPICS.performance, [window(number, auc=number / 100, mature=number < 18)], 0)
    tally.take(TOPICS.performance, [window(18, auc=0.5, mature=True)], 0)
    tally.take(TOPICS.labels, [Record(b"{}"), Record(b"{}")], 0)
    snapshot = Meter(tally, 10, Clock()).snapshot(5, pending=7)
    assert (snapshot.windows, snapshot.mature) == (20, 19)
    assert snapshot.auc["champion"] == (*(number / 100 for number in range(4, 18)), 0.5, 0.19)
    assert snapshot.auc["online"] == (None,) * 16
    assert (snapshot.pending_labels, snapshot.pending_predictions) == (2, 7)


def test_the_line_shows_the_same_without_a_terminal() -> None:
    assert line(SNAPSHOT) == (
        "29,800 of 110,942 events | 02 Apr 2013 | 2,998/s | latency p50 8.1 ms, p99 22.4 ms"
        " | 53 dead letters | 29,111 labels | 28,950 samples | AUC champion 0.642, online 0.607"
        " | drift distance_miles PSI 0.24, departures_in_hour PSI 0.38, scheduled_minutes -, flight_number PSI 12.30,"
        " carrier PSI 0.10 | training…, promoted 2"
    )
    assert line(NOTHING_YET).endswith("| drift - | trained 0, promoted 0")


def test_the_tallest_bar_fills_the_chart_and_the_smallest_can_be_seen() -> None:
    assert chart((0, 1, 800, 400), lines=2).splitlines() == ["    ██  ", "  ▁▁████", "0      1"]


def test_rates_and_latency_are_of_the_last_five_seconds() -> None:
    clock = Clock()
    tally = Tally(TOPICS, {}, Feedback(TOPICS, {}))
    meter = Meter(tally, 1_000, clock)
    clock.now_s += 60  # nothing is sent yet, and this time does not count
    assert meter.snapshot(0).in_eps == 0
    for second in range(10):
        clock.now_s += 1
        tally.latencies_ms.append(float(second))
        snapshot = meter.snapshot(100 * (second + 1) if second < 5 else 500 + 20 * (second - 4))
    assert snapshot.in_eps == pytest.approx(20)
    assert snapshot.latency_ms["p50"] == 7.0


def test_plain_lines_come_every_two_seconds_and_sentences_at_once() -> None:
    clock, lines = Clock(), list[str]()
    with PlainView(lines.append, clock) as view:
        for _ in range(17):
            view.show(SNAPSHOT)
            clock.now_s += 0.25
        view.say("done")
    assert lines == [line(SNAPSHOT)] * 3 + ["done"]


def test_the_screen_appears_with_the_first_snapshot_below_what_was_said() -> None:
    out = io.StringIO()
    with ScreenView(Console(width=80, height=24, file=out, force_terminal=True, color_system=None)) as view:
        view.say("starting")
        assert "penstock" not in out.getvalue()
        view.show(SNAPSHOT)
    assert out.getvalue().index("starting") < out.getvalue().index("penstock · flights")
