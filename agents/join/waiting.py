"""Labels that wait for their prediction, found by event, in the order in which they were read.

The oldest label of an event leads: it alone is in the table of the store. The others are listed with it, so that
putting in or finding a label takes as long whether its event has one or thousands.
"""

from collections.abc import Iterable
from itertools import chain as chained
from typing import Final, NamedTuple

import numpy as np

from agents.join.clock import NEVER
from agents.join.pending import Flags, Ints, Keys, Pending
from agents.join.reader import LabelReader, Labels
from agents.join.writer import Waited

_ROW: Final = np.dtype([("offset", "i8"), ("timestamp", "i8"), ("time", "i8"), ("code", "i4")])
Mark = tuple[int, int, int]
"""Time, code and expiry of a label: two of an event that have the same are one."""
Chain = dict[Mark, int]
"""The ids of an event's labels, in the order in which they were read: the leader comes first."""


class Met(NamedTuple):
    """Labels that met a prediction: whose (a position among the keys), what they say, and until when they waited."""

    owners: Ints
    labels: Labels
    expiry: Ints


class WaitingLabels:
    """The labels that wait. A row takes 90 bytes and the record; one that is listed some 300 more."""

    def __init__(self, reader: LabelReader, smallest: int) -> None:
        self._reader = reader
        self._store = Pending(_ROW, smallest)
        self._chains: dict[int, Chain] = {}  # by the leader's id; an event with one label has none

    @property
    def alive(self) -> int:
        """The number of labels that wait."""
        return self._store.alive

    def label_bound(self) -> int:
        """Return the lowest offset of a label that waits; NO_OFFSET if there is none."""
        return self._store.label_bound()

    def add(self, labels: Labels, expiry: Ints) -> int:
        """Let labels wait; return how many were dropped, because they repeat one that waits, and waits as long.

        About 1.5 µs each, and 1.5 µs more for each beyond the first of its event.
        """
        leaders = self._find(labels.keys)
        homes = np.where(leaders < 0, ~_first_places(labels.keys), leaders)  # ~place where this batch has the leader
        leads = homes == ~np.arange(homes.size)
        followers = np.flatnonzero(~leads)
        if not followers.size:
            self._put(labels, expiry, leads)
            return 0
        marks = _marks(labels.times_ms, labels.codes, expiry)
        chains = self._chains_of(homes[followers], marks)
        fresh = leads.copy()
        for place, home in zip(followers.tolist(), homes[followers].tolist(), strict=True):
            if marks[place] not in chains[home]:
                chains[home][marks[place]] = ~place
                fresh[place] = True
        kept = np.flatnonzero(fresh)
        ids = dict(zip(kept.tolist(), self._put(labels.take(kept), expiry[kept], leads[kept]).tolist(), strict=True))
        for place in followers[fresh[followers]].tolist():
            chains[int(homes[place])][marks[place]] = ids[place]
        for home, chain in chains.items():
            leader = home if home >= 0 else ids[~home]
            chain[next(iter(chain))] = leader
            self._chains[leader] = chain
        return len(fresh) - kept.size

    def _chains_of(self, homes: Ints, marks: list[Mark]) -> dict[int, Chain]:
        """Return the chain of each home; a new one has the leader in it."""
        known = np.unique(homes)
        lone = np.array([home for home in known.tolist() if home >= 0 and home not in self._chains], dtype=np.int64)
        rows = self._store.rows(lone)
        lone_marks = _marks(rows["time"], rows["code"], self._store.expiry(lone))
        chains = {home: {mark: home} for home, mark in zip(lone.tolist(), lone_marks, strict=True)}
        for home in known.tolist():
            if home not in chains:
                chains[home] = self._chains[home] if home >= 0 else {marks[~home]: home}
        return chains

    def _put(self, labels: Labels, expiry: Ints, leads: Flags) -> Ints:
        rows = np.empty(len(expiry), dtype=_ROW)
        rows["offset"], rows["timestamp"] = labels.offsets, labels.timestamps_ms
        rows["time"], rows["code"] = labels.times_ms, labels.codes
        values = [record.value or b"" for record in labels.records]
        return self._store.add(labels.keys, rows, values, expiry, labels.offsets, leads)

    def take(self, keys: Keys, moments: Ints) -> Met | None:
        """Take out the labels that wait at their `moments` for these events; those of an event in their order.

        Where an event is there twice, the first takes them all. What has expired by then is left to the sweep.
        """
        leaders, owners = np.unique(self._find(keys), return_index=True)
        leaders, owners = leaders[leaders >= 0], owners[leaders >= 0]
        ids = leaders
        if self._chains:
            members: list[Iterable[int]] = [
                self._chains.pop(leader).values() if leader in self._chains else (leader,)
                for leader in leaders.tolist()
            ]
            owners = np.repeat(owners, [len(list(each)) for each in members])
            ids = np.fromiter(chained.from_iterable(members), dtype=np.int64)
        expiry = self._store.expiry(ids)
        alive = expiry > moments[owners]
        if not alive.any():
            return None
        met = Met(owners[alive], self._reader.again(self.records(ids[alive])), expiry[alive])
        self.remove(ids[alive])
        return met

    def _find(self, keys: Keys) -> Ints:
        """Return the leader of each event, or -1; it may have expired, but is not swept away yet."""
        return self._store.find(keys, np.full(len(keys.texts), NEVER))

    def expired(self, moment: int) -> Ints:
        """Return the ids of the labels that expire at `moment` or before, in the order in which they were read."""
        return self._store.expired(moment)

    def expiry(self, ids: Ints) -> Ints:
        """Return until when each label waits."""
        return self._store.expiry(ids)

    def records(self, ids: Ints) -> list[Waited]:
        """Return the labels' records, as they were read."""
        rows = self._store.rows(ids)
        offsets, timestamps = rows["offset"].tolist(), rows["timestamp"].tolist()
        return [
            Waited(offset, timestamp, text.entity_id.encode(), text.extra)
            for offset, timestamp, text in zip(offsets, timestamps, self._store.texts(ids), strict=True)
        ]

    def remove(self, ids: Ints) -> None:
        """Take labels out; after those that have expired, `relead` must follow."""
        self._store.remove(ids)
        self._store.tidy()

    def relead(self, moment: int) -> None:
        """Let the oldest label that is left lead, where the leader has expired by `moment`. 0.1 µs per listed label."""
        heirs = []
        for leader, chain in list(self._chains.items()):
            left = {mark: member for mark, member in chain.items() if mark[2] > moment}
            if len(left) < len(chain):
                del self._chains[leader]
                heir = next(iter(left.values()), leader)
                if len(left) > 1:
                    self._chains[heir] = left
                if heir != leader:
                    heirs.append(heir)
        if heirs:
            ids = np.array(heirs)
            self._store.enter(ids, self._reader.again(self.records(ids)).keys.hashes)


def _marks(times: Ints, codes: Ints, expiry: Ints) -> list[Mark]:
    return list(zip(times.tolist(), codes.tolist(), expiry.tolist(), strict=True))


def _first_places(keys: Keys) -> Ints:
    """Return for each key the place of the first one that is equal to it."""
    places = np.arange(len(keys.texts))
    if (np.diff(np.sort(keys.hashes)) != 0).all():
        return places
    firsts: dict[tuple[bytes, int], int] = {}
    identities = zip(keys.texts, keys.lengths.tolist(), strict=True)
    return np.array([firsts.setdefault(identity, place) for place, identity in enumerate(identities)])
