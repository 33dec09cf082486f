"""The rules by which predictions and labels of one partition meet; the state they leave is a fold over both logs.

`moments` are what the clock said (its last sweep) when each record was read. Nothing here depends on how the records
are cut into batches.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from agents.join.pending import NO_OFFSET, SMALLEST, Flags, Ints, Keys, Pending, Table
from agents.join.reader import LabelReader, Labels, Predictions, names_of
from agents.join.waiting import WaitingLabels
from agents.join.writer import JoinOutput, Outcome
from schemas.errors import InvalidEvent
from schemas.streams import MINUTE_MS, StreamSpec
from stream.timestamps import bounded

STEP_ROWS: Final = 2_000  # between looks at the event loop; about 10 ms
GRID: Final = 256  # sweeps in the time that a prediction waits
MOST_EXPIRED: Final = 20_000  # in one go, if a step of the grid has no more; that is 12 MB of assumed negatives
_SPAN: Final = 1 << 45  # ms: more than any time there is


class Matcher:
    """Predictions that wait for their labels, labels that wait for their prediction, and what they make together.

    `unlabelled` counts the predictions that wait for a first label. `counts` counts what leaves no output:
    "repeated" predictions, "duplicate" labels, "unlabelled" predictions that expired.
    """

    def __init__(
        self, spec: StreamSpec, labels: LabelReader, smallest: int = SMALLEST, most_expired: int = MOST_EXPIRED
    ) -> None:
        self.window_ms = spec.join.window_minutes * MINUTE_MS
        self.lateness_ms = spec.join.lateness_minutes * MINUTE_MS
        self.grid_ms = max(1, (self.window_ms + self.lateness_ms) // GRID)
        self.unlabelled = 0
        self.counts: Counter[str] = Counter()
        self._most_expired = most_expired
        self._assume = spec.join.assume_negative
        self._names = names_of(spec)
        self._rows = Pending(_row_type(spec), smallest)
        self._waiting = WaitingLabels(labels, smallest)
        self._origins: list[tuple[str, str, int, int | str]] = []
        self._origin_codes: dict[tuple[str, str, int, int | str], int] = {}
        self._history: dict[int, dict[int, int]] = {}  # by time, the labels before the newest, if any
        self._holds: dict[int, int] = {}  # until when which prediction must be read again, though it may be gone

    @property
    def waiting(self) -> int:
        """The number of labels that wait for their prediction."""
        return self._waiting.alive

    def take_predictions(self, predictions: Predictions, moments: Ints, out: JoinOutput | None) -> None:
        """Let predictions wait, and meet the labels that wait for them. Without `out` nothing is written."""
        times = bounded(predictions.times_ms, predictions.timestamps_ms)
        expiry = np.maximum(times + self.window_ms + self.lateness_ms, moments) + 1
        found = self._rows.find(predictions.keys, moments)
        is_new, again = found < 0, np.flatnonzero(found >= 0)
        if again.size:
            outlasted = expiry[again] > self._rows.expiry(found[again])
            self._hold(expiry[again[outlasted]], self._rows.rows(found[again[outlasted]])["offset"])
        if has_repeats(predictions.keys.hashes):
            self._drop_repeats(predictions, moments, expiry, is_new)
        new = np.flatnonzero(is_new)
        self.counts["repeated"] += is_new.size - new.size
        if not new.size:
            return
        rows, keys, extras = self._new_rows(predictions), predictions.keys, predictions.shadows
        if new.size < is_new.size:
            rows, keys, extras = rows[new], keys.take(new), [extras[i] for i in new.tolist()]
        ids = self._rows.add(keys, rows, extras, expiry[new], np.full(new.size, NO_OFFSET))
        self.unlabelled += new.size
        if self._waiting.alive:
            self._meet(keys, ids, moments[new], predictions.offsets[new], out)

    def _drop_repeats(self, predictions: Predictions, moments: Ints, expiry: Ints, is_new: Flags) -> None:
        """Clear `is_new` where an event comes again while the one before it in the batch is alive."""
        alive: dict[tuple[bytes, int], int] = {}
        keys = predictions.keys
        for i in np.flatnonzero(is_new).tolist():
            identity = (keys.texts[i], int(keys.lengths[i]))
            first = alive.get(identity, i)
            if first == i or expiry[first] <= moments[i]:
                alive[identity] = i
                continue
            is_new[i] = False
            if expiry[i] > expiry[first]:
                self._hold(expiry[[i]], predictions.offsets[[first]])

    def _new_rows(self, predictions: Predictions) -> Table:
        rows = np.empty(len(predictions.offsets), dtype=self._rows.row_type)
        rows["event_time"] = predictions.times_ms
        rows["scored_time"] = predictions.scored_ms
        rows["latency"] = predictions.latency_ms
        rows["score"] = predictions.score
        rows["offset"] = predictions.offsets
        rows["features"] = predictions.features
        rows["scores"] = predictions.scores
        codes = {origin: self._origin(origin) for origin in set(predictions.origins)}
        rows["origin"] = [codes[origin] for origin in predictions.origins]
        rows["label_time"] = rows["label"] = rows["revision"] = -1
        return rows

    def _origin(self, origin: tuple[str, str, int, int | str]) -> int:
        code = self._origin_codes.get(origin)
        if code is None:
            code = self._origin_codes[origin] = len(self._origins)
            self._origins.append(origin)
        return code

    def _meet(self, keys: Keys, ids: Ints, moments: Ints, triggers: Ints, out: JoinOutput | None) -> None:
        """Judge the labels that waited for the new rows `ids`, in the order in which they were read."""
        met = self._waiting.take(keys, moments)
        if met is not None:
            self._judge(ids[met.owners], met.labels, met.expiry, triggers[met.owners], out)

    def take_labels(self, labels: Labels, moments: Ints, out: JoinOutput | None) -> None:
        """Let labels meet their predictions, or wait for them. Without `out` nothing is written."""
        expiry = np.maximum(bounded(labels.times_ms, labels.timestamps_ms) + self.lateness_ms, moments) + 1
        ids = self._rows.find(labels.keys, moments)
        met, alone = np.flatnonzero(ids >= 0), np.flatnonzero(ids < 0)
        if met.size:
            self._judge(ids[met], labels.take(met), expiry[met], labels.offsets[met], out)
        if alone.size:
            self.counts["duplicate"] += self._waiting.add(labels.take(alone), expiry[alone])

    def _judge(self, ids: Ints, labels: Labels, expiry: Ints, triggers: Ints, out: JoinOutput | None) -> None:
        """Make samples of labels that met the rows `ids`, or refuse them; the labels of a row are in their order.

        `expiry` is until when each label would have waited.
        """
        rows = self._rows.rows(ids)
        inside = labels.times_ms - rows["event_time"] <= self.window_ms
        if has_repeats(ids):
            _meet_one_by_one(rows, ids, labels, inside)
        outlasted = expiry > self._rows.expiry(ids)
        self._hold(expiry[outlasted], rows["offset"][outlasted])
        good = inside & (labels.times_ms > rows["label_time"])
        for i in np.flatnonzero(good & (rows["revision"] >= 0)).tolist():
            self._history.setdefault(int(ids[i]), {})[int(rows["label_time"][i])] = int(rows["label"][i])
        if not good.all():
            self._refuse(np.flatnonzero(~good), ids, rows, labels, triggers, out)
            kept = np.flatnonzero(good)
            if not kept.size:
                return
            ids, rows, labels, triggers = ids[kept], rows[kept], labels.take(kept), triggers[kept]
        columns = {"revision": rows["revision"] + 1, "label": labels.codes, "label_time": labels.times_ms}
        self._rows.update(ids, labels.offsets, **columns)
        self.unlabelled -= int((rows["revision"] < 0).sum())
        if out is not None:
            self._write(ids, rows, self._outcome(labels, rows), triggers, out)

    def _refuse(
        self, bad: Ints, ids: Ints, rows: Table, labels: Labels, triggers: Ints, out: JoinOutput | None
    ) -> None:
        for i in bad.tolist():
            error = self._fault(int(ids[i]), rows[i], int(labels.times_ms[i]), int(labels.codes[i]))
            if error is None:
                self.counts["duplicate"] += 1
            elif out is not None:
                out.letter(int(triggers[i]), labels.records[i], error)

    def _fault(self, row_id: int, row: np.void, time_ms: int, code: int) -> InvalidEvent | None:
        """Say what is wrong with a label that does not count; None for one that was there before."""
        late_ms = time_ms - int(row["event_time"]) - self.window_ms
        if late_ms > 0:
            return InvalidEvent(
                "outside_window",
                f"label time {time_ms} is {late_ms + self.window_ms} ms after the event's; "
                f"the window is {self.window_ms} ms",
            )
        label_time, label = int(row["label_time"]), int(row["label"])
        if (time_ms, code) == (label_time, label) or self._history.get(row_id, {}).get(time_ms) == code:
            return None
        name = self._names[label]
        if time_ms == label_time:
            return InvalidEvent("conflicting", f"label {name!r} of the same time, {time_ms}, came before this one")
        return InvalidEvent("superseded", f"label {name!r} of the later time {label_time} came before this one")

    def _hold(self, expiry: Ints, offsets: Ints) -> None:
        """Let the predictions at `offsets` be read again until `expiry`, though they may be gone by then.

        They met a record that would have lasted longer: read again without them, it would wait.
        """
        until = -(-expiry // self.grid_ms) * self.grid_ms
        for moment, offset in zip(until.tolist(), offsets.tolist(), strict=True):
            self._holds[moment] = min(self._holds.get(moment, offset), offset)

    def _outcome(self, labels: Labels, rows: Table) -> Outcome:
        names = self._names
        return Outcome(
            event_ids=labels.event_ids,
            entity_ids=labels.entity_ids,
            revisions=(rows["revision"] + 1).tolist(),
            times_ms=labels.times_ms.tolist(),
            labels=[names[code] for code in labels.codes.tolist()],
            weights=labels.weights,
            replaces=[None if code < 0 else names[code] for code in rows["label"].tolist()],
        )

    def _write(self, ids: Ints, rows: Table, outcome: Outcome, triggers: Ints, out: JoinOutput) -> None:
        shadows: list[object] = [()] * len(ids)
        if self._rows.has_extras(ids):
            shadows = [msgspec.Raw(text.extra) if text.extra else () for text in self._rows.texts(ids)]
        origins = self._origins
        out.samples(triggers, rows, outcome, [origins[code] for code in rows["origin"].tolist()], shadows)

    def limit(self, moment: int) -> int:
        """Return how far a sweep to `moment` may go: not further than about `most_expired` rows, in steps of the grid.

        At least one step in which something expires. So a clock that leaps after a pause does not bring about
        gigabytes at once.
        """
        rows, labels = self._rows.expired(moment), self._waiting.expired(moment)
        if rows.size + labels.size <= self._most_expired:
            return moment
        expiry = np.sort(np.append(self._rows.expiry(rows), self._waiting.expiry(labels)))
        last = (int(expiry[self._most_expired]) - 1) // self.grid_ms
        first = -(-int(expiry[0]) // self.grid_ms)
        return min(moment, max(first, last) * self.grid_ms)

    def sweep(self, moment: int, after: Ints, offsets: Ints, out: JoinOutput | None) -> Iterator[None]:
        """Let expire what expires at `moment` or before; yields between steps of about 10 ms.

        `after` are the moments after each of the records at `offsets`: they tell which record brought it about.
        """
        expired = self._rows.expired(moment)
        for start in range(0, expired.size, STEP_ROWS):
            if start:
                yield
            self._expire(expired[start : start + STEP_ROWS], after, offsets, out)
        expired = self._waiting.expired(moment)
        for start in range(0, expired.size, STEP_ROWS):
            yield
            self._give_up(expired[start : start + STEP_ROWS], after, offsets, out)
        if expired.size:
            self._waiting.relead(moment)
        self._holds = {until: offset for until, offset in self._holds.items() if until > moment}

    def _expire(self, ids: Ints, after: Ints, offsets: Ints, out: JoinOutput | None) -> None:
        bare = ids[self._rows.label_offset(ids) == NO_OFFSET]
        self.unlabelled -= bare.size
        if bare.size and out is not None:
            if self._assume:
                self._write_assumed(bare, offsets[np.searchsorted(after, self._rows.expiry(bare))], out)
            else:
                self.counts["unlabelled"] += bare.size
        if self._history:
            for row_id in ids.tolist():
                self._history.pop(row_id, None)
        self._rows.remove(ids)
        self._rows.tidy()

    def _write_assumed(self, ids: Ints, triggers: Ints, out: JoinOutput) -> None:
        rows, count = self._rows.rows(ids), len(ids)
        texts = self._rows.texts(ids)
        outcome = Outcome(
            event_ids=[text.event_id for text in texts],
            entity_ids=[text.entity_id for text in texts],
            revisions=[0] * count,
            times_ms=(rows["event_time"] + self.window_ms).tolist(),
            labels=[0] * count,
            weights=[1.0] * count,
            replaces=[None] * count,
            assumed=True,
        )
        self._write(ids, rows, outcome, triggers, out)

    def _give_up(self, ids: Ints, after: Ints, offsets: Ints, out: JoinOutput | None) -> None:
        if out is not None:
            error = InvalidEvent("no_prediction", "no prediction of this event came in time")
            triggers = offsets[np.searchsorted(after, self._waiting.expiry(ids))]
            for trigger, record in zip(triggers.tolist(), self._waiting.records(ids), strict=True):
                out.letter(trigger, record, error)
        self._waiting.remove(ids)

    def resume_offsets(self, next_offsets: tuple[int, int]) -> tuple[int, int]:
        """Return from which prediction and which label on the logs must be read to rebuild this state."""
        oldest = self._rows.oldest()
        predictions = [next_offsets[0], *self._holds.values()]
        if oldest is not None:
            predictions.append(int(oldest["offset"]))
        return min(predictions), min(next_offsets[1], self._rows.label_bound(), self._waiting.label_bound())


def has_repeats(keys: Ints) -> bool:
    """Whether any key is there twice."""
    return bool((np.diff(np.sort(keys)) == 0).any())


def _meet_one_by_one(rows: Table, ids: Ints, labels: Labels, inside: Flags) -> None:
    """Make of each of `rows` what its label meets, after the labels before it that count for the same row."""
    order, places = np.argsort(ids, kind="stable"), np.arange(ids.size)
    starts = np.diff(ids[order], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(starts, places, 0))
    codes, known, code = labels.codes[order], rows["label_time"][order], rows["label"][order]
    times = np.where(inside, labels.times_ms, -1)[order]
    shift = starts.cumsum() * _SPAN  # so that the newest time begins anew with each row
    newest = np.maximum.accumulate(np.maximum(times, known) + shift) - shift
    newest = np.where(starts, known, np.roll(newest, 1))
    counts = times > newest
    before = counts.cumsum() - counts
    last = np.roll(np.maximum.accumulate(np.where(counts, places, -1)), 1)
    rows["label_time"][order] = newest
    rows["label"][order] = np.where(~starts & (last >= start), codes[last], code)
    rows["revision"][order] += before - before[start]


def _row_type(spec: StreamSpec) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("event_time", "i8"),
            ("scored_time", "i8"),
            ("latency", "i8"),
            ("label_time", "i8"),
            ("offset", "i8"),
            ("origin", "i4"),
            ("label", "i4"),
            ("revision", "i4"),
            ("score", "f8"),
            ("scores", "f8", (len(spec.classes),)),
            ("features", "f8", (len(spec.features),)),
        ]
    )
