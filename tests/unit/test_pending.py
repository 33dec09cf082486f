"""The columnar store: exact whatever the hashes, in segments that come and go."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.join.pending import NO_OFFSET, Ints, Keys, Pending, Text

ROW = np.dtype([("number", "i8"), ("values", "f8", (2,))])
ALWAYS = 1 << 40


def keys_of(identities: Sequence[tuple[str, str]], hashed: int | None = None) -> Keys:
    return Keys.of(
        [event for event, _ in identities], [entity for _, entity in identities], (lambda _: hashed) if hashed else hash
    )


def put(store: Pending, identities: Sequence[tuple[str, str]], hashed: int | None = None, until: int = ALWAYS) -> Ints:
    rows = np.zeros(len(identities), dtype=ROW)
    rows["number"] = np.arange(len(identities))
    rows["values"] = [[i / 3, np.nan] for i in range(len(identities))]
    many = len(identities)
    extras = [f"extra of {event}".encode() for event, _ in identities]
    return store.add(keys_of(identities, hashed), rows, extras, np.full(many, until), np.full(many, NO_OFFSET))


def find(store: Pending, identities: Sequence[tuple[str, str]], hashed: int | None = None, at: int = 0) -> list[int]:
    return store.find(keys_of(identities, hashed), np.full(len(identities), at)).tolist()


def events(count: int, prefix: str = "e") -> list[tuple[str, str]]:
    return [(f"{prefix}{i}", "N1") for i in range(count)]


def test_rows_come_back_as_they_were_put_in_from_any_number_of_segments() -> None:
    store = Pending(ROW, smallest=4, largest=8)
    ids = put(store, events(50))
    order = np.random.default_rng(1).permutation(50)
    assert find(store, [events(50)[i] for i in order]) == ids[order].tolist()
    rows = store.rows(ids[order])
    assert rows["number"].tolist() == order.tolist()
    assert rows["values"][:, 0].tolist() == [i / 3 for i in order.tolist()]
    assert store.texts(ids[order[:2]]) == [Text(f"e{i}", "N1", f"extra of e{i}".encode()) for i in order[:2]]
    assert np.all(np.diff(ids) > 0)


@pytest.mark.parametrize("hashed", [1, -1, 5 << 32, (1 << 63) - 1, -(1 << 63)])
def test_equal_hashes_never_make_a_false_match(hashed: int) -> None:
    store = Pending(ROW, smallest=4, largest=8)
    ids = put(store, events(20), hashed)
    assert find(store, events(20), hashed) == ids.tolist()
    assert find(store, events(20, "x"), hashed) == [-1] * 20


def test_where_the_event_id_ends_is_part_of_the_identity() -> None:
    store = Pending(ROW)
    ids = put(store, [("ab", "c"), ("äb", "c"), ("", "x\0y")], 7)
    assert find(store, [("a", "bc"), ("ab", "c"), ("äb", "c"), ("ä", "bc"), ("x\0", "y"), ("", "x\0y")], 7) == [
        -1,
        ids[0],
        ids[1],
        -1,
        -1,
        ids[2],
    ]
    assert store.texts(ids)[1][:2] == ("äb", "c")


def test_a_row_is_found_until_its_expiry_and_its_successor_after_it() -> None:
    store = Pending(ROW, smallest=4)
    first = put(store, [("e", "N")], until=10)
    second = put(store, [("e", "N")], until=20)
    store.remove(second)
    assert [find(store, [("e", "N")], at=at) for at in (9, 10)] == [first.tolist(), [-1]]
    third = put(store, [("e", "N")], until=30)
    assert find(store, [("e", "N")], at=10) == third.tolist()


def test_a_row_that_is_not_entered_is_found_once_it_is() -> None:
    store = Pending(ROW, smallest=4)
    keys, many = keys_of(events(6)), 6
    rows, until, entered = np.zeros(many, dtype=ROW), np.full(many, ALWAYS), np.arange(many) % 2 == 0
    ids = store.add(keys, rows, [b""] * many, until, np.full(many, 5), entered)
    assert find(store, events(6)) == np.where(entered, ids, -1).tolist()
    late = np.array([5, 1])
    store.enter(ids[late], keys.hashes[late])
    assert find(store, events(6)) == [ids[0], ids[1], ids[2], -1, ids[4], ids[5]]
    assert (store.alive, store.label_bound()) == (many, 5)


def test_of_values_written_to_a_row_twice_the_last_stand_and_the_lowest_offset() -> None:
    store = Pending(ROW, smallest=4)
    ids = put(store, events(3))
    store.update(ids[[1, 1, 1]], np.array([40, 30, 50]), number=np.array([7, 8, 9]))
    assert store.rows(ids)["number"].tolist() == [0, 9, 2]
    assert store.label_offset(ids).tolist() == [NO_OFFSET, 30, NO_OFFSET]


def test_segments_without_rows_give_their_memory_back_and_the_others_stay() -> None:
    store = Pending(ROW, smallest=4, largest=4)
    ids = put(store, events(12))
    store.remove(ids[[0, 1, 2, 3, 9]])
    store.tidy()
    assert len(store._segments) == 2
    assert find(store, events(12)) == [-1] * 4 + ids[4:9].tolist() + [-1] + ids[10:].tolist()
    assert store.oldest()["number"] == 4
    assert store.alive == 7


def test_the_lowest_label_offset_that_a_row_needs_is_known_and_rises_when_the_row_goes() -> None:
    store = Pending(ROW, smallest=4, largest=4)
    ids = put(store, events(8))
    assert store.label_bound() == NO_OFFSET
    store.update(ids[[1, 6]], np.array([70, 30]), number=np.array([11, 66]))
    store.update(ids[[1]], np.array([50]), number=np.array([12]))
    assert store.rows(ids)["number"].tolist() == [0, 12, 2, 3, 4, 5, 66, 7]
    assert (store.label_bound(), store.label_offset(ids[[1, 2]]).tolist()) == (30, [50, NO_OFFSET])
    store.remove(ids[[6]])
    assert store.label_bound() == 50


def test_expired_rows_are_told_once_in_order() -> None:
    store = Pending(ROW, smallest=4, largest=4)
    ids = np.concatenate([put(store, events(3, f"{until}-"), until=until) for until in (30, 10, 20)])
    assert store.expired(9).tolist() == []
    assert store.expired(20).tolist() == ids[3:].tolist()
    store.remove(ids[3:])
    assert store.expired(20).tolist() == []
    assert store.expired(30).tolist() == ids[:3].tolist()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "find"]), st.integers(1, 12), st.integers(0, 2**32))),
    st.data(),
)
def test_the_store_is_a_dictionary(steps: list[tuple[str, int, int]], data: st.DataObject) -> None:
    store = Pending(ROW, smallest=2, largest=8)
    known: dict[tuple[str, str], int] = {}
    hasher = data.draw(st.sampled_from([hash, lambda pair: len(pair[0]), lambda pair: int(pair[0]) << 32]))
    for step, count, seed in steps:
        rng = np.random.default_rng(seed)
        identities = [(str(i), "N") for i in rng.choice(100, count, replace=False).tolist()]
        keys = Keys.of([event for event, _ in identities], ["N"] * count, hasher)
        found = store.find(keys, np.zeros(count, dtype=np.int64))
        assert found.tolist() == [known.get(identity, -1) for identity in identities]
        if step == "add":
            new = np.flatnonzero(found < 0)
            if new.size:
                rows, many = np.zeros(new.size, dtype=ROW), new.size
                ids = store.add(keys.take(new), rows, [b""] * many, np.full(many, ALWAYS), np.full(many, NO_OFFSET))
                known |= {identities[i]: row for i, row in zip(new.tolist(), ids.tolist(), strict=True)}
        elif step == "remove":
            store.remove(found[found >= 0])
            store.tidy()
            known = {identity: row for identity, row in known.items() if identity not in identities}
    assert store.alive == len(known)
