"""The newest drift report of a stream, for people: found in its log, shown as a table, or why there is none."""

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from functools import partial
from math import ceil
from typing import Final, TextIO

from agents.baselines import baseline_opener, require_columns
from app.logs import events_of
from app.models import RegistryView, log_reader, read_registry, require_topics
from app.registry import artifact_store
from app.settings import Settings
from app.stages import drift_of
from app.text import minute, number, p_value, printable
from schemas.drift import ColumnDrift, DriftReport, PartialHistogram
from schemas.errors import PenstockError
from schemas.event import SEVERITY_RANKS
from schemas.streams import StreamSpec
from stream.batches import TopicPartition
from stream.connection import KafkaConnection
from stream.tail import read_back
from topics import StreamTopics

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_EMPTY: Final = "·"
_MOST_BLOCKS: Final = 40
_MOST_LETTERS: Final = 28
_BEFORE_BINS: Final = 92
_HEADER: Final = (
    f"{'severity':<10} {'PSI':>8} {'KS':>6} {'p':>8} {'W/σ':>7} {'missing':>8} {'mean':>10} shares of the bins:"
)


async def newest_report(connection: KafkaConnection, spec: StreamSpec) -> DriftReport | None:
    """Return the stream's newest committed report, or None; a few hundred kilobytes are read, however long the log.

    Raises SettingsError when the stream's topics do not exist.
    """
    await require_topics(connection, spec)
    source = TopicPartition(StreamTopics(spec.name).drift, 0)
    async with aclosing(read_back(partial(log_reader, connection), source)) as pieces:
        async for records in pieces:
            if reports := events_of(DriftReport, records):
                return reports[-1]
    return None


async def why_none(connection: KafkaConnection, settings: Settings, spec: StreamSpec) -> str:
    """Return a sentence that says why the stream has no report yet, and what to do."""
    registry = await read_registry(connection, spec)
    begin = f"stream {spec.name} has no drift report"
    if reason := await _why_unwatched(settings, registry):
        return f"{begin}: {reason}"
    window = drift_of(settings, spec).window_events
    assert window is not None  # drift_of leaves nothing open
    counted = await _counted(connection, spec, _baseline_now(registry), window)
    if counted == 0:
        return (
            f"{begin}: no event has been counted against the baseline of its champion; "
            "is a worker with the role score running, and do events come?"
        )
    if spec.drift.window_minutes:
        return (
            f"{begin}: no window of {spec.drift.window_minutes} minutes of event time is "
            f"complete, with at least {counted:,} events counted; it is judged once later events come"
        )
    if counted < window:
        return (
            f"{begin}: a window is {window:,} events, of which {counted:,} have been "
            f"counted; {window - counted:,} more are needed"
        )
    return (
        f"{begin}, although enough events for a window of {window:,} have been counted; "
        "is a worker with the role learn running?"
    )


async def why_outdated(connection: KafkaConnection, settings: Settings, spec: StreamSpec, report: DriftReport) -> str:
    """Return a sentence when `report` says nothing of what is scored now; it is empty when the baseline is the same."""
    registry = await read_registry(connection, spec)
    begin = f"this report is of model {printable(report.model_id)}"
    if reason := await _why_unwatched(settings, registry):
        return f"{begin}, and drift is not watched now: {reason}"
    if (now := _baseline_now(registry)) == report.baseline:
        return ""
    return (
        f"{begin}; champion {registry.champion} is measured against another baseline, {now[:12]}, "
        "and no window of that has been judged yet"
    )


async def _why_unwatched(settings: Settings, registry: RegistryView) -> str:
    """Return why nothing is counted, and what to do; empty when there is a baseline that can be used."""
    spec, champion = registry.spec, registry.champion
    if champion is None:
        return f"no model serves, so nothing is scored; `penstock models promote MODEL_ID --stream {spec.name}`"
    remedy = f"`penstock drift baseline {champion} --stream {spec.name} --data FILE`, with its training data"
    source = registry.baseline_of(champion)
    if source is None:
        return f"its champion {champion} has no baseline to compare with; {remedy}"
    try:
        baseline = await baseline_opener(artifact_store(settings))(source.baseline, source.baseline_bytes)
        require_columns(spec, baseline)
    except PenstockError as error:
        return f"the baseline of {source.model_id} is no use: {error}; {remedy}"
    return ""


def _baseline_now(registry: RegistryView) -> str:
    """Return the SHA-256 of the baseline that counts for the champion; empty without one."""
    source = registry.baseline_of(registry.champion) if registry.champion is not None else None
    return source.baseline if source is not None else ""


async def _counted(connection: KafkaConnection, spec: StreamSpec, baseline: str, enough: int) -> int:
    """Return how many events were counted against `baseline`; reads back until there are `enough`."""
    counted = 0
    source = TopicPartition(StreamTopics(spec.name).histograms, 0)
    async with aclosing(read_back(partial(log_reader, connection), source)) as pieces:
        async for records in pieces:
            counted += sum(h.n for h in events_of(PartialHistogram, records) if h.baseline == baseline)
            if counted >= enough:
                break
    return counted


def render(report: DriftReport, out: TextIO) -> None:
    """Write the report as text: what was judged, then the columns, the worst first, each with two histograms.

    The upper one is the baseline's, the lower one the window's, over the same bins and on the same scale; a dot is a
    bin without values. Where there are more than 40 bins, neighbours share a block.
    """
    out.write("\n".join(_lines(report)))


def _lines(report: DriftReport) -> Iterator[str]:
    yield (
        f"{printable(report.stream)}: window {report.number}, {report.n:,} events from {minute(report.from_time_ms)} "
        f"to {minute(report.to_time_ms)} UTC"
    )
    yield f"model {printable(report.model_id)}, baseline {printable(report.baseline)[:12]}"
    share = f"{report.drifted_share:.0%} of the judged features have drifted"
    advice = f"; recommended: {printable(report.recommendation)}" if report.recommendation else ""
    yield f"{report.severity}: {share}{advice}"
    for title, columns in (("feature", report.features), ("prediction", report.predictions)):
        if columns:
            yield ""
            yield f"{title:<{_MOST_LETTERS}} {_HEADER}"
            for column in sorted(columns, key=_badness, reverse=True):
                yield from _column_lines(column)


def _badness(column: ColumnDrift) -> tuple[int, bool, float]:
    return SEVERITY_RANKS[column.severity], column.judged, -1.0 if column.psi is None else column.psi


def _column_lines(column: ColumnDrift) -> Iterator[str]:
    name = printable(column.name)
    if len(name) > _MOST_LETTERS:
        name = name[: _MOST_LETTERS - 1] + "…"
    severity = column.severity if column.judged else "not judged"
    reference, current = _histograms(column.reference, column.current)
    figures = (
        f"{name:<{_MOST_LETTERS}} {severity:<10} {number(column.psi, '.4f'):>8} {number(column.ks, '.3f'):>6} "
        f"{p_value(column.p_value):>8} {number(column.wasserstein_scaled, '.3f'):>7} "
        f"{number(column.missing_share, '.1%'):>8} {_mean(column.mean):>10}"
    )
    yield f"{figures:<{_BEFORE_BINS}} {reference}".rstrip()
    reason = f"  {printable(column.reason)}"
    if len(reason) > _BEFORE_BINS:
        yield reason
        reason = ""
    if reason.strip() or current:
        yield f"{reason:<{_BEFORE_BINS}} {current}".rstrip()


def _histograms(reference: Sequence[float], current: Sequence[float]) -> tuple[str, str]:
    size = max(1, ceil(max(len(reference), len(current)) / _MOST_BLOCKS))
    merged = [[sum(shares[i : i + size]) for i in range(0, len(shares), size)] for shares in (reference, current)]
    highest = max((share for shares in merged for share in shares), default=0.0)
    upper, lower = ("".join(_block(share, highest) for share in shares) for shares in merged)
    return upper, lower


def _block(share: float, highest: float) -> str:
    if share <= 0:
        return _EMPTY
    return _BLOCKS[min(ceil(len(_BLOCKS) * share / highest), len(_BLOCKS)) - 1]


def _mean(value: float | None) -> str:
    return number(value, ",.0f" if value is not None and 1e3 <= abs(value) < 1e8 else ".4g")
