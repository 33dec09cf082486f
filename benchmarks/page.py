"""Does the stream feel that somebody looks at the live page?

One worker with all roles, one Apache Kafka, one producer of 1,000 events per second, on all the cores that there are.
Spans without a viewer and spans with one viewer of `/live` take turns in one run. The worker follows the topics for a
while after the last viewer has gone, so what comes then counts for neither.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import psutil

from app.page.document import Board, StreamBoard
from benchmarks import machine, synthetic
from benchmarks.chaos_score import deployed, producing
from benchmarks.plain import Follower, Kafka, until
from benchmarks.spans import Span, read_for, summary
from benchmarks.workers import Penstock, Worker
from tests.command_line import free_port
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_GROUP: Final = "penstock-score"
_SETTLE_S: Final = 5.0
_FORGET_S: Final = 40.0  # the page's consumer ends 30 s after the last viewer
_READ_TIMEOUT_S: Final = 20.0
_DRAIN_S: Final = 60.0
_LEAST_DOCUMENTS_PER_S: Final = 0.5
_RATE_TOLERANCE: Final = 0.3


class Viewer(threading.Thread):
    """One viewer of `/live`, as a browser would be one: `documents` are what came, undecoded, while its block ran."""

    def __init__(self, address: str) -> None:
        super().__init__(name="viewer")
        self.documents: list[bytes] = []
        self._response = urllib.request.urlopen(f"{address}/live", timeout=_READ_TIMEOUT_S)
        self._left = threading.Event()

    def run(self) -> None:
        """Collect until left: something comes every second, or at worst a comment every fifteen."""
        with self._response:
            lines = takewhile(lambda _: not self._left.is_set(), self._response)
            for document in documents_of(lines):
                self.documents.append(document)  # while the other thread reads them

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join()


class _Turn(NamedTuple):
    """A span, and how many cores the worker used in it."""

    span: Span
    cores: float

    def __str__(self) -> str:
        return f"{self.span}, {self.cores:.2f} cores"


class _Seen(msgspec.Struct):
    event_id: str


def add_command(commands: Any) -> None:
    """Add `page` to the benchmarks that can be asked for."""
    parser = commands.add_parser("page", help="look at the live page: what that does to the stream's latency")
    parser.add_argument("--rate", type=int, default=1_000, help="events per second")
    parser.add_argument("--rounds", type=int, default=3, help="spans without a viewer, and with one")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a span")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; print and write the result. Returns 1 when an event was not answered or the page stood still.

    It stands still for the viewer where documents are missing, or do not tell the rate of the stream.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        penstock = stack.enter_context(deployed(folder, server, synthetic.CONFIG, arguments.seed))
        journal = folder / "journal"
        words = [_TOPICS.features, str(journal), str(arguments.rate), "0", str(arguments.seed)]
        with producing("benchmarks.chaos_producer", cluster.bootstrap, *words):
            result = _take_turns(penstock, Follower(server.bootstrap, _TOPICS.predictions), arguments)
        with contextlib.suppress(TimeoutError):  # what is missing then is told below
            ends = cluster.ends(_TOPICS.features)
            until(lambda: cluster.committed(_GROUP, _TOPICS.features) == ends, "the worker to drain", _DRAIN_S)
        result["problems"] += unanswered(journal.read_text(encoding="utf-8"), cluster)
    result["machine"] = machine.describe()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if result["problems"] else 0


def _take_turns(penstock: Penstock, reader: Follower, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the spans of both kinds, the worker's processor time in each, and what was wrong with the documents."""
    port = free_port()
    worker = penstock.worker("worker", page_port=port)
    worker.wait_until_ready()
    alone, viewed, seen = [], [], []
    problems: list[str] = []
    with contextlib.closing(reader):
        read_for(reader, _SETTLE_S)
        for number in range(arguments.rounds):
            alone.append(_measure(worker, reader, arguments.seconds))
            print(f"round {number + 1}: alone  {alone[-1]}", flush=True)
            with Viewer(f"http://127.0.0.1:{port}") as viewer:
                read_for(reader, _SETTLE_S)  # the history is read at first
                known = len(viewer.documents)
                viewed.append(_measure(worker, reader, arguments.seconds))
                documents = viewer.documents[known:]
            print(f"round {number + 1}: viewed {viewed[-1]}", flush=True)
            problems += problems_of(map(_stream, documents), arguments.seconds, arguments.rate)
            seen += documents
            read_for(reader, _FORGET_S)
    turns = {"alone": alone, "viewed": viewed}
    return summary({kind: [turn.span for turn in found] for kind, found in turns.items()}) | {
        "cores": {kind: round(statistics.median(turn.cores for turn in found), 3) for kind, found in turns.items()},
        "documents": len(seen),
        "document_bytes": round(statistics.median(map(len, seen))) if seen else None,
        "problems": problems,
    }


def _measure(worker: Worker, reader: Follower, seconds: float) -> _Turn:
    """Read predictions for so long."""
    process = psutil.Process(worker.pid)
    before = process.cpu_times()
    span = read_for(reader, seconds)
    after = process.cpu_times()
    return _Turn(span, (after.user + after.system - before.user - before.system) / span.seconds)


def documents_of(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each server-sent event."""
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line.strip() and data:
            yield b"\n".join(data)
            data = []


def _stream(document: bytes) -> tuple[int, StreamBoard]:
    board = msgspec.json.decode(document, type=Board)
    assert board.stream is not None, "the topics are read by now"
    return board.generated_time_ms, board.stream


def problems_of(seen: Iterable[tuple[int, StreamBoard]], seconds: float, rate: float) -> list[str]:
    """Return in which way documents, each with the time when it was made, do not follow a stream of such a rate."""
    documents: Sequence[tuple[int, StreamBoard]] = list(seen)
    if len(documents) < _LEAST_DOCUMENTS_PER_S * seconds:
        return [f"{len(documents)} documents came in {seconds:g} s"]
    problems = []
    times_ms = [time_ms for time_ms, _ in documents]
    if any(later <= earlier for earlier, later in pairwise(times_ms)):
        problems.append("a document is older than the one before it")
    first, last = documents[0][1].flow, documents[-1][1].flow
    if not last.history or (first.history and last.history[-1][0] <= first.history[-1][0]):
        problems.append("the history of the flow did not move")
    for name, eps in (("in", last.in_eps), ("out", last.out_eps)):
        if eps is None or abs(eps - rate) > _RATE_TOLERANCE * rate:
            problems.append(f"the page says {eps} events/s {name}, and there are {rate:g}")
    return problems


def unanswered(journal: str, cluster: Kafka) -> list[str]:
    """Return what is wrong with the predictions of the events that the producer's journal names."""
    sent = Counter(line.split()[0] for line in journal.splitlines())
    decode = msgspec.json.Decoder(_Seen).decode
    answered = Counter(decode(row.value or b"").event_id for row in cluster.read(_TOPICS.predictions))
    missing, extra = (sent - answered).total(), (answered - sent).total()
    return [f"{missing} of {sent.total()} events were not answered, {extra} predictions too many"] * (sent != answered)
