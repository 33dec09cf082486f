"""The page's benchmark: what of a viewer's documents is right, and what is told when it is not."""

import pytest

from app.page.document import DeadLetters, Flow, Labels, Models, State, StreamBoard
from benchmarks.page import documents_of, problems_of

SENT = b": hello\n\ndata: {}\n\n: heartbeat\n\nid: 7\nevent: board\ndata: [1,\ndata: 2]\n\ndata: cut off"


def _board(second: int, eps: float | None = 1_000) -> tuple[int, StreamBoard]:
    history = ((second * 1_000, 1_000.0, 1_000.0, None),)
    return second * 1_000, StreamBoard(
        name="bench",
        task="binary",
        state=State(level="ok", sentence="All is well."),
        flow=Flow(in_eps=1_050, out_eps=eps, history=history),
        models=Models(),
        drift=None,
        labels=Labels(),
        alerts=(),
        timeline=(),
        dead_letters=DeadLetters(),
        experiment=None,
        training=None,
    )


def test_the_documents_are_the_data_of_whole_events() -> None:
    assert list(documents_of(SENT.splitlines(keepends=True))) == [b"{}", b"[1,\n2]"]


def test_documents_that_follow_the_stream_are_right() -> None:
    assert problems_of([_board(second) for second in range(20)], 20.0, 1_000) == []


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ([_board(0), _board(9)], "2 documents came in 20 s"),
        ([_board(second) for second in (*range(18), 5, 18)], "a document is older"),
        ([(second, _board(3)[1]) for second in range(20)], "the history of the flow did not move"),
        ([_board(second, eps=400) for second in range(20)], "the page says 400 events/s out, and there are 1000"),
        ([_board(second, eps=None) for second in range(20)], "the page says None events/s out"),
    ],
)
def test_documents_that_do_not_are_told(seen: list[tuple[int, StreamBoard]], problem: str) -> None:
    found = problems_of(seen, 20.0, 1_000)
    assert [problem in sentence for sentence in found] == [True]
