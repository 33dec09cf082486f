"""A finished replay as a person reads it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from app.text import minute, number, per_cent, printable, second, table

_SHOWN_WINDOWS: Final = 12  # from each end
_SHOWN_ALERTS: Final = 10
_FIGURES: Final = ("accuracy", "roc_auc", "log_loss")
_WORLDS: Final = ("served", "replayed")


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the document of a replay as lines."""
    yield from _head(document)
    for part in (_scores, _overall, _decisions, _windows, _told, _learned):
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
    for subject, problem in document["problems"].items():
        yield f"{printable(subject)}: {printable(problem)}"


def _scores(document: Mapping[str, Any]) -> Iterator[str]:
    if document["scores"]:
        header = ("variant", "model", "scores", "identical", "within 1e-12", "different", "not executed")
        keys = ("events", "identical", "close", "different", "not_executed")
        rows = [(one["variant"], one["model_id"], *(f"{one[key]:,}" for key in keys)) for one in document["scores"]]
        yield from table([header, *rows], right=range(2, 7))


def _overall(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["overall"]
    if found is None:
        yield "no event of this time has a label yet"
        return
    sure = {difference["metric"]: difference for difference in found["differences"]}
    rows = [("all labelled events", "served", "replayed", "difference", "95% interval")]
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
            f"train, {runs:,} of them runs"
        )
        for alert in alerts[:_SHOWN_ALERTS]:
            yield f"  {minute(alert['raised_time_ms'])}  {alert['severity']:<8}  {printable(alert['message'])}"
        if len(alerts) > _SHOWN_ALERTS:
            yield f"  … and {len(alerts) - _SHOWN_ALERTS:,} more; --json has them all"


def _learned(document: Mapping[str, Any]) -> Iterator[str]:
    if (found := document["learned"]) is not None:
        yield (
            f"learner {document['learner']}: {found['updates']:,} updates, {len(found['published']):,} snapshots "
            f"served, {len(found['kept_back']):,} kept back"
        )
