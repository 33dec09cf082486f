"""A finished replay as a person reads it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from app.text import minute, number, per_cent, printable, second, table

_SHOWN_WINDOWS: Final = 12  # from each end
_SHOWN_ALERTS: Final = 10
_FIGURES: Final = ("accuracy", "roc_auc", "log_loss")
_WORLDS: Final = ("served", "replayed")


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the document of a replay as lines."""
    yield from _head(document)
    for part in (_scores, _overall, _learnt_from, _decisions, _windows, _told, _learned):
        if lines := list(part(document)):
            yield ""
            yield from lines


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    ends = (("from", document["from_time_ms"]), ("to", document["to_time_ms"]))
    span = "".join(f" {word} {second(time_ms)}" for word, time_ms in ends if time_ms is not None)
    yield f"stream {document['stream']}{span}: {document['events']:,} events, {document['samples']:,} samples"
    learner = f", from its first snapshot on learner {document['learner']}" if document["learner"] else ""
    changed = f"; {', '.join(document['set'])}" if document["set"] else ""
    yield f"replayed: model {document['model']}{learner}, threshold {document['threshold']:g}{changed}"
    history = document["history"]
    if history["archived_samples"]:
        yield (
            f"{history['archived_samples']:,} samples come from the archive: Kafka has forgotten them, and with them "
            "the events of that time that got no label"
        )
    if document["unusable"]:
        yield f"{document['unusable']:,} records are no events of the stream as it is declared now, and are left out"
    if document["not_scored"]:
        yield f"{document['not_scored']:,} samples have no score in the replay, and are left out"
    if document["pruned"]:
        yield f"{len(document['pruned']):,} models were pruned: their scores cannot be computed again"
    problems: dict[str, list[str]] = {}
    for subject, problem in document["problems"].items():
        problems.setdefault(_family(subject), []).append(f"{printable(subject)}: {printable(problem)}")
    for first, *others in problems.values():
        yield first + (f" (and {len(others):,} more of this learner)" if others else "")


def _family(model_id: str) -> str:
    """Return what the snapshots of a learner have in common; of another model, its id."""
    lineage, at, _ = model_id.rpartition("@")
    return lineage + at or model_id


def _scores(document: Mapping[str, Any]) -> Iterator[str]:
    if not document["scores"]:
        return
    keys = ("events", "identical", "close", "different", "not_executed")
    sums: dict[tuple[str, str], Counter[str]] = {}
    for one in document["scores"]:
        variant = f"{one['variant']} (shadow)" if one["shadow"] else one["variant"]
        whose = variant, _family(one["model_id"]) + ("…" if "@" in one["model_id"] else "")
        sums.setdefault(whose, Counter()).update({key: one[key] for key in keys})
    header = ("variant", "model", "scores", "identical", "within 1e-12", "different", "not executed")
    rows = [(*whose, *(f"{counts[key]:,}" for key in keys)) for whose, counts in sums.items()]
    yield from table([header, *rows], right=range(2, 7))


def _learnt_from(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a model may have known before, if anything."""
    found = document["learnt_from"]
    if found is None:
        return
    model_id, until_ms = printable(found["model_id"]), found["training_to_time_ms"]
    if until_ms is None:
        yield f"nobody said up to when model {model_id} learnt: of events that it has seen, these figures say nothing"
    elif found["events"]:
        start = datetime.fromtimestamp(until_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield (
            f"{found['events']:,} of {document['events']:,} events are from before {start}, up to when {model_id} "
            f"learnt: of those, these figures say nothing; --from {start} leaves them out"
        )
        yield from _figures(found["overall_later"], "later labelled events")


def _overall(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _figures(document["overall"], "all labelled events")


def _figures(found: Mapping[str, Any] | None, which: str) -> Iterator[str]:
    if found is None:
        yield f"there are no {which} yet" if which != "all labelled events" else "no event of this time has a label yet"
        return
    sure = {difference["metric"]: difference for difference in found["differences"]}
    rows = [(which, "served", "replayed", "difference", "95% interval")]
    for name in dict.fromkeys([*found["served"], *found["replayed"]]):
        served, replayed = found["served"].get(name), found["replayed"].get(name)
        gap = None if served is None or replayed is None else replayed - served
        rows.append(
            (name, number(served, ".4f"), number(replayed, ".4f"), number(gap, "+.4f"), _interval(sure.get(name)))
        )
    yield from table(rows, right=range(1, 5))


def _interval(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["low"] is None:
        return ""
    return f"{difference['low']:+.4f} to {difference['high']:+.4f}"


def _decisions(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["decisions"]
    share = per_cent(found["changed"] / found["events"]) if found["events"] else "0%"
    yield f"decisions: {found['changed']:,} of {found['events']:,} would have been others ({share})"
    for change in found["changes"]:
        served, replayed = (printable(str(change[world])) for world in _WORLDS)
        yield f"  {change['events']:>9,} from {served} to {replayed}"
    if found["changed"]:
        yield f"  of those with labels {found['became_right']:,} become right, and {found['became_wrong']:,} wrong"
    if found["not_scored"]:
        yield f"  {found['not_scored']:,} events could not be scored, and are not compared"
    for one in found["examples"]:
        place = f" ({one['place']})" if one["place"] else ""
        yield (
            f"  such as {printable(one['event_id'])}{place}: {one['served_score']:.4f} of "
            f"{printable(one['served_by'])}, {one['replayed_score']:.4f} of {printable(one['replayed_by'])}"
        )
        break


def _windows(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the champions' figures, window by window. Windows of one number are the same events in both worlds, unless
    the replay has other windows.
    """
    worlds = [_champions(document[world]["windows"]) for world in _WORLDS]
    numbers = sorted(worlds[0].keys() | worlds[1].keys())
    if not numbers:
        return
    shown = numbers
    if len(numbers) > 2 * _SHOWN_WINDOWS:
        shown = numbers[:_SHOWN_WINDOWS] + numbers[-_SHOWN_WINDOWS:]
    header = ("window", "from", "events", *(f"{name} {world}" for name in _FIGURES for world in _WORLDS))
    rows = []
    for window in shown:
        found = [world.get(window) for world in worlds]
        first = next(one for one in found if one is not None)
        figures = [number(None if one is None else one[1][name], ".4f") for name in _FIGURES for one in found]
        mark = "" if first[0]["mature"] else " *"
        rows.append((f"{window}{mark}", minute(first[0]["from_time_ms"]), f"{first[1]['n']:,}", *figures))
    yield from table([header, *rows], right=range(2, 9))
    if len(shown) < len(numbers):
        yield f"… and {len(numbers) - len(shown):,} windows between them; --json has them all"
    if any(not first[0]["mature"] for world in worlds for first in world.values()):
        yield "* not mature: labels of this time may still come"


def _champions(windows: Sequence[Mapping[str, Any]]) -> dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return each window with its champion's figures, by number."""
    return {
        window["number"]: (window, variant)
        for window in windows
        for variant in window["variants"]
        if variant["variant"] == "champion"
    }


def _told(document: Mapping[str, Any]) -> Iterator[str]:
    for world in _WORLDS:
        alerts, requests = document[world]["alerts"], document[world]["requests"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(a["kind"] for a in alerts).items()))
        runs = sum(request["runs"] for request in requests)
        would = "would have been raised" if world == "replayed" else "by this code on what was served"
        yield (
            f"{world}: {len(alerts):,} alerts {would}{f' ({kinds})' if kinds else ''}; {len(requests):,} requests to "
            f"train, {runs:,} of them runs; {document[world]['drift_windows']:,} drift windows"
        )
        for alert in alerts[:_SHOWN_ALERTS]:
            yield f"  {minute(alert['raised_time_ms'])}  {alert['severity']:<8}  {printable(alert['message'])}"
        if len(alerts) > _SHOWN_ALERTS:
            yield f"  … and {len(alerts) - _SHOWN_ALERTS:,} more; --json has them all"


def _learned(document: Mapping[str, Any]) -> Iterator[str]:
    if (found := document["learned"]) is not None:
        yield (
            f"learner {document['learner']}: {found['updates']:,} updates, {len(found['published']):,} snapshots, "
            f"{len(found['served']):,} of them served, and {len(found['kept_back']):,} kept back"
        )
