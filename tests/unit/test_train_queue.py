"""The queue of requests to train anew: what is merged, what is skipped, and what an attempt counts."""

import pytest

from agents.train.ending import event_of, note_of
from agents.train.job import Kept
from agents.train.queue import Queue, Skip, begun, ended, excused, expected, given_up, kept, received, tried
from schemas.events import RetrainRequest
from schemas.runs import TrainingEvent
from schemas.streams import MINUTE_MS
from schemas.training import TrainingSpec
from schemas.wire import decode
from tests.support import version_of
from tests.training import DAY_MS, request_of, spec_of

RULES = TrainingSpec(cooldown_minutes=24 * 60)


def with_requests(queue: Queue, *requests: RetrainRequest, rules: TrainingSpec = RULES) -> tuple[Queue, list[Skip]]:
    skips = []
    for request in requests:
        queue, skip = received(queue, request, rules)
        skips += [skip] if skip is not None else []
    return queue, skips


def begin(queue: Queue, rules: TrainingSpec = RULES) -> tuple[Queue, list[Skip]]:
    return begun(queue, "flights", rules, stop_offset=7, champion=version_of(spec_of(), "m"), now_ms=9)


def test_requests_that_wait_become_one_run_which_is_frozen_then() -> None:
    queue, _ = with_requests(
        Queue(),
        request_of("r1", requested_by="judge"),
        request_of("r2", requested_by="evaluate", reason="accuracy"),
        request_of("r3", requested_by="judge"),
    )
    queue, skips = begin(queue)
    assert queue.run is not None
    assert (skips, queue.waiting) == ([], ())
    assert queue.run.request_ids == ("r1", "r2", "r3")
    assert (queue.run.reasons, queue.run.requested_by) == (("drift", "accuracy"), "judge, evaluate")
    assert (queue.run.stop_offset, queue.run.started_time_ms, queue.run.attempt) == (7, 9, 0)
    assert queue.run.champion == version_of(spec_of(), "m")


def test_the_words_of_people_who_asked_come_along() -> None:
    queue, _ = with_requests(
        Queue(),
        request_of("r1"),
        *(
            request_of(name, reason="manual", evidence={"asked_because": words})
            for name, words in (("r2", "new plane"), ("r3", ""), ("r4", "new plane"), ("r5", "a hurricane"))
        ),
    )
    queue, _ = begin(queue)
    assert queue.run is not None
    assert queue.run.asked_because == "new plane; a hurricane"
    event = decode(TrainingEvent, bytes(note_of("t", event_of(spec_of(), queue.run, "fit", 1)).value))
    assert event.asked_because == "new plane; a hurricane"


def test_a_request_that_comes_again_changes_nothing_wherever_it_is() -> None:
    waiting, _ = with_requests(Queue(), request_of("r1"))
    running, _ = begin(waiting)
    over = ended(running, RULES, 0)
    for queue in (waiting, running, over):
        assert received(queue, request_of("r1"), RULES) == (queue, None)


def test_requests_that_come_while_a_run_is_at_work_wait_for_the_next_one() -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    queue, _ = with_requests(queue, request_of("r2"), request_of("r3"))
    assert queue.run is not None
    assert queue.run.request_ids == ("r1",)
    queue, _ = begin(ended(queue, RULES, 0))
    assert queue.run is not None
    assert queue.run.request_ids == ("r2", "r3")


def test_a_reason_that_the_stream_does_not_train_for_is_skipped_but_a_person_always_counts() -> None:
    rules = TrainingSpec(reasons=("accuracy",))
    queue, skips = with_requests(Queue(), request_of("r1"), request_of("r2", reason="manual"), rules=rules)
    assert [(skip.asked.id, skip.why) for skip in skips] == [("r1", "training.reasons does not have drift")]
    assert [asked.id for asked in queue.waiting] == ["r2"]


@pytest.mark.parametrize(
    ("time_ms", "reason", "counts"),
    [
        (2 * DAY_MS - 1, "drift", False),
        (2 * DAY_MS, "drift", True),
        (0, "manual", True),
    ],
)
def test_after_a_run_requests_count_again_when_what_it_saw_last_is_a_cooldown_ago(
    time_ms: int, reason: str, counts: bool
) -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    queue, skips = with_requests(
        ended(queue, RULES, DAY_MS), request_of("r2", requested_time_ms=time_ms, reason=reason)
    )
    assert bool(queue.waiting) == counts
    assert len(skips) == (not counts)
    if skips:
        assert skips[0].why == (
            "it is of 1970-01-02T23:59:59Z, and after the last run requests count again from 1970-01-03T00:00:00Z on "
            "(training.cooldown_minutes is 1440)"
        )


def test_what_waited_for_a_run_is_skipped_when_that_made_it_pointless() -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    queue, _ = with_requests(queue, request_of("r2"), request_of("r3", requested_time_ms=5 * DAY_MS))
    queue, skips = begin(ended(queue, RULES, DAY_MS))
    assert [skip.asked.id for skip in skips] == ["r2"]
    assert queue.run is not None
    assert queue.run.request_ids == ("r3",)


def test_when_nothing_that_waits_counts_no_run_begins() -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    queue, _ = with_requests(queue, request_of("r2"))
    queue, skips = begin(ended(queue, RULES, DAY_MS))
    assert (queue.run, queue.waiting, len(skips)) == (None, (), 1)


def test_a_run_that_read_nothing_blocks_from_its_newest_request_that_is_not_by_hand() -> None:
    asked = [
        request_of("r1", requested_time_ms=2 * DAY_MS),
        request_of("r2", requested_time_ms=DAY_MS),
        request_of("r3", reason="manual", requested_time_ms=9 * DAY_MS),
    ]
    queue, _ = begin(with_requests(Queue(), *asked)[0])
    assert ended(queue, RULES, 0).blocked_until_ms == 3 * DAY_MS
    queue, _ = begin(with_requests(Queue(), request_of("r4", reason="manual", requested_time_ms=9 * DAY_MS))[0])
    assert ended(queue, RULES, 0).blocked_until_ms == 0


def test_an_earlier_run_blocks_no_less_after_a_later_one() -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    queue, _ = begin(with_requests(ended(queue, RULES, 5 * DAY_MS), request_of("r2", reason="manual"))[0])
    assert ended(queue, RULES, DAY_MS).blocked_until_ms == 6 * DAY_MS


def test_requests_that_newer_ones_have_left_behind_are_skipped_but_not_those_by_hand() -> None:
    rules = TrainingSpec(cooldown_minutes=60)
    asked = [
        request_of("weeks old", requested_time_ms=9 * DAY_MS - 1),
        request_of("a day old", requested_time_ms=9 * DAY_MS),
        request_of("by hand", reason="manual", requested_time_ms=0),
        request_of("new", requested_time_ms=10 * DAY_MS),
        request_of("by hand later", reason="manual", requested_time_ms=900 * DAY_MS),
    ]
    queue, skips = begin(with_requests(Queue(), *asked, rules=rules)[0], rules)
    assert queue.run is not None
    assert queue.run.request_ids == ("a day old", "by hand", "new", "by hand later")
    assert [(skip.asked.id, skip.why) for skip in skips] == [
        (
            "weeks old",
            "it is of 1970-01-09T23:59:59Z, and the newest that waits is of 1970-01-11T00:00:00Z: what it saw is long "
            "past",
        )
    ]


def test_what_waits_for_a_run_that_will_make_it_pointless_is_not_expected_to_become_one() -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1", requested_time_ms=DAY_MS))[0])
    queue, _ = with_requests(queue, request_of("r2", requested_time_ms=DAY_MS + 1))
    assert expected(queue, RULES) == ()
    queue, _ = with_requests(queue, request_of("r3", reason="manual"), request_of("r4", requested_time_ms=2 * DAY_MS))
    assert [asked.id for asked in expected(queue, RULES)] == ["r3", "r4"]


def test_a_run_is_given_up_when_it_was_interrupted_too_often_or_for_too_long() -> None:
    rules = TrainingSpec(attempts=2, max_minutes=10)
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    long_after_ms = 9 + 20 * MINUTE_MS + 1
    assert queue.run is not None
    assert given_up(queue.run, rules, long_after_ms) == ""
    queue = excused(tried(queue))
    assert queue.run is not None
    assert given_up(queue.run, rules, long_after_ms - 1) == ""
    assert "taken away once" in given_up(queue.run, rules, long_after_ms)
    assert "began more than 20 minutes ago" in given_up(queue.run, rules, long_after_ms)
    for _ in range(18):
        queue = excused(tried(queue))
    assert queue.run is not None
    assert (queue.run.attempt, given_up(queue.run, rules, 9)) == (0, "")
    queue = excused(tried(queue))
    assert queue.run is not None
    assert "taken away 20 times" in given_up(queue.run, rules, 9)


def test_attempts_are_counted_and_one_that_was_interrupted_is_taken_back() -> None:
    queue, _ = begin(with_requests(Queue(), request_of("r1"))[0])
    queue = kept(excused(tried(tried(queue))), Kept(sha256="ab" * 32, size_bytes=5, before=("cd" * 32,)))
    assert queue.run is not None
    assert (queue.run.attempt, queue.run.kept_sha256, queue.run.kept_bytes) == (1, "ab" * 32, 5)
