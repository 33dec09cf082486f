"""The script of the learn chaos run: what it promises of each label follows from the join's rules."""

import json
from collections import Counter, defaultdict
from typing import Any

import pytest

from benchmarks import synthetic
from benchmarks.chaos_producer import home_of
from benchmarks.label_script import LATENESS_MS, WINDOW_MS, Fate, Message, Script

EVENTS = 8_000
FEATURES, LABELS = f"{synthetic.STREAM}.features", f"{synthetic.STREAM}.labels"


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    script = Script(seed=3)
    return [message for _ in range(EVENTS) for message in script.step()] + list(script.end())


def fates(messages: list[Message], outcome: str) -> list[Fate]:
    return [m.fate for m in messages if m.fate is not None and m.fate.outcome == outcome]


def test_every_event_comes_once_and_has_one_first_sample(messages: list[Message]) -> None:
    sent = Counter(json.loads(m.value)["event_id"] for m in messages if m.topic == FEATURES)
    due = Counter(fate.event_id for fate in fates(messages, "sample") if not fate.revision)
    assert len(sent) > EVENTS
    assert set(sent.values()) == {1}
    assert due == sent


def test_the_same_seed_gives_the_same_messages(messages: list[Message]) -> None:
    again = Script(seed=3)
    repeated = [message for _ in range(500) for message in again.step()]
    assert repeated == messages[: len(repeated)]


def test_a_label_is_due_for_a_sample_exactly_when_it_is_inside_the_window_and_new(messages: list[Message]) -> None:
    newest: dict[str, tuple[int, int]] = {}
    seen: dict[str, set[tuple[int, int]]] = defaultdict(set)
    events = {json.loads(m.value)["event_id"] for m in messages if m.topic == FEATURES}
    for fate in (m.fate for m in messages if m.topic == LABELS and m.fate is not None):
        own = (fate.label_time_ms, fate.label)
        before = newest.get(fate.event_id)
        if fate.label not in (0, 1):
            assert (fate.kind, fate.outcome) == ("malformed", "dead")
        elif fate.event_id not in events:
            assert (fate.outcome, fate.reason) == ("dead", "no_prediction")
        elif fate.label_time_ms - fate.event_time_ms > WINDOW_MS:
            assert (fate.outcome, fate.reason) == ("dead", "outside_window")
        elif own in seen[fate.event_id]:
            assert fate.outcome == "nothing"
        elif before is not None and fate.label_time_ms <= before[0]:
            reason = "conflicting" if fate.label_time_ms == before[0] else "superseded"
            assert (fate.outcome, fate.reason) == ("dead", reason)
        else:
            assert (fate.outcome, fate.revision) == ("sample", 0 if before is None else 1)
            newest[fate.event_id] = own
            seen[fate.event_id].add(own)


def test_no_label_comes_after_the_join_may_have_forgotten_its_event(messages: list[Message]) -> None:
    heads: dict[str, dict[int, int]] = {FEATURES: defaultdict(int), LABELS: defaultdict(int)}
    for message in messages:
        document = decoded(message.value)
        if document is None:
            continue
        if message.topic == LABELS and message.fate is not None and message.fate.kind != "ghost":
            clock_ms = min(head[home_of(message.key)] for head in heads.values())
            assert clock_ms < message.fate.event_time_ms + WINDOW_MS + LATENESS_MS
            assert message.fate.label_time_ms + LATENESS_MS > min(clock_ms, message.fate.event_time_ms)
        head, time = heads[message.topic], "label_time_ms" if message.topic == LABELS else "event_time_ms"
        head[home_of(message.key)] = max(head[home_of(message.key)], document[time])


def decoded(value: bytes) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(value)
    except ValueError:
        return None
    return document


def test_it_ends_with_an_event_and_a_label_on_each_partition_after_which_nothing_waits(messages: list[Message]) -> None:
    last = [m for m in messages if m.fate is not None and m.fate.kind == "last"]
    times_ms = [f.label_time_ms for f in fates(messages[: -len(last)], "sample")]
    assert messages[-len(last) :] == last
    assert {home_of(m.key) for m in last} == set(range(synthetic.PARTITIONS))
    for message in last:
        assert message.fate is not None
        assert message.fate.label_time_ms > max(times_ms) + WINDOW_MS + LATENESS_MS


def test_every_kind_of_trouble_occurs(messages: list[Message]) -> None:
    found = Counter((fate.outcome, fate.reason) for fate in fates(messages, "dead") + fates(messages, "nothing"))
    assert {reason for _, reason in found} == {
        "",
        "outside_window",
        "conflicting",
        "superseded",
        "no_prediction",
    }
    assert found["nothing", ""] > 100
    assert found["dead", ""] > 0
    assert sum(fate.revision for fate in fates(messages, "sample")) > 50
    assert sum(fate.assumed for fate in fates(messages, "sample")) > 100
    assert sum(decoded(message.value) is None for message in messages) > 0
    bad = sum(fate.label not in (0, 1) for fate in fates(messages, "dead"))
    assert bad < 0.01 * len(messages)  # the worker stops when one label in twenty is bad in itself
