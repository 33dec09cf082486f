"""What comes back of the labels: samples, dead letters, figures by window, and models that have learnt from them."""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.demo.champion import roc_auc
from app.demo.flights import ARCHIVE_SAMPLES, ONLINE, PUBLISH_SAMPLES, WINDOW_SAMPLES
from schemas.events import DeadLetter
from schemas.wire import decoder
from topics import StreamTopics

CHAMPION: Final = "champion"
VARIANTS: Final = (CHAMPION, ONLINE)
_RECENT_SAMPLES: Final = 2_000
_TRIGGER: Final = b"trigger"  # the key of records of `<s>.samples` that are no samples
_ARCHIVE: Final = b"archive.0"  # the key of the archive's checkpoints


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """n samples as they came back: event ids, labels int8 (n,), and the served scores float64 (n,)."""

    event_ids: Sequence[str]
    labels: NDArray[np.int8]
    scores: NDArray[np.float64]


class Record(Protocol):
    """What is needed of a Kafka record."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class SeenScore(msgspec.Struct, frozen=True, gc=False):
    """The fields of a ShadowScore that are counted."""

    variant: str
    score: float


class SeenSample(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Sample that are counted."""

    event_id: str
    event_time_ms: int
    label_time_ms: int
    label: int
    score: float
    revision: int
    shadows: tuple[SeenScore, ...] = ()


class SeenFigures(msgspec.Struct, frozen=True, gc=False):
    """The fields of a VariantPerformance that are shown."""

    variant: str
    roc_auc: float | None


class SeenWindow(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Performance that are shown."""

    number: int
    mature: bool
    variants: tuple[SeenFigures, ...]

    def auc(self, variant: str) -> float | None:
        """Return the ROC AUC of `variant` in this window."""
        return next((seen.roc_auc for seen in self.variants if seen.variant == variant), None)


class SeenUpdate(msgspec.Struct, frozen=True, gc=False):
    """The fields of a ModelUpdate that are counted."""

    lineage: str
    last_offset: int


class SeenCheckpoint(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Checkpoint that are counted."""

    offsets: dict[str, int]


class SeenVersion(msgspec.Struct, frozen=True, gc=False):
    """The fields of a ModelVersion that are counted."""

    model_id: str


class Feedback:
    """What has come back of the labels from `label_offsets` on (of `<s>.labels`, by partition).

    `samples_offset` is where `<s>.samples` began. `windows` are the newest figures of each window, by number.
    """

    def __init__(self, topics: StreamTopics, label_offsets: Mapping[int, int], samples_offset: int = 0) -> None:
        self.takers: dict[str, Callable[[Record], None]] = {
            topics.samples: self._take_sample,
            topics.labels_dead: self._take_dead_letter,
            topics.performance: self._take_window,
            topics.updates: self._take_update,
            topics.models: self._take_version,
            topics.checkpoints: self._take_checkpoint,
        }
        self._topic = topics.samples
        self._label_offsets = label_offsets
        self._samples_offset = samples_offset
        self._known: dict[tuple[str, int], None] = {}  # in the order in which they came
        self._learnt = 0
        self._archived = 0
        self._labels = {variant: array("b") for variant in VARIANTS}
        self._scores = {variant: array("d") for variant in VARIANTS}
        self._delays_ms = array("q")
        self.repeated = 0
        self.unmatched: Counter[str] = Counter()
        self.windows: dict[int, SeenWindow] = {}
        self.versions: set[str] = set()

    @property
    def samples(self) -> int:
        """How many samples there are; one that comes again counts as `repeated` instead."""
        return len(self._known)

    @property
    def settled(self) -> int:
        """How many labels are dead letters, or samples that everybody has read.

        The evaluator tells how far it is with each window, the learner with each snapshot, the archive with each chunk:
        as long as the next is not due, they are taken to be as far as this reader.
        """
        evaluated = (len(self.windows) + 1) * WINDOW_SAMPLES
        learnt = self._learnt + PUBLISH_SAMPLES
        archived = self._archived + ARCHIVE_SAMPLES
        return self.unmatched.total() + min(self.samples, evaluated, learnt, archived)

    @property
    def served(self) -> Served:
        """What was served, sample by sample; only the first label of each event counts."""
        first = [place for place, (_, revision) in enumerate(self._known) if revision == 0]
        event_ids = [event_id for event_id, revision in self._known if revision == 0]
        labels = np.array(self._labels[CHAMPION], dtype=np.int8)[first]
        return Served(event_ids, labels, np.array(self._scores[CHAMPION])[first])

    @property
    def label_delay_ms(self) -> float | None:
        """The median time from event to label, of the newest samples."""
        recent = self._delays_ms[-_RECENT_SAMPLES:]
        return float(np.median(recent)) if recent else None

    def auc(self, variant: str) -> float | None:
        """Return the exact ROC AUC over all samples that carry a score of `variant`; None without both classes."""
        labels, scores = np.array(self._labels[variant], dtype=np.int8), np.array(self._scores[variant])
        return roc_auc(labels, scores) if np.unique(labels).size == 2 else None

    def _take_sample(self, record: Record) -> None:
        if record.key == _TRIGGER:
            return
        sample = decoder(SeenSample).decode(record.value or b"")
        known = (sample.event_id, sample.revision)
        if known in self._known:
            self.repeated += 1
            return
        self._known[known] = None
        self._delays_ms.append(sample.label_time_ms - sample.event_time_ms)
        self._score(CHAMPION, sample.label, sample.score)
        for shadow in sample.shadows:
            if shadow.variant == ONLINE:
                self._score(ONLINE, sample.label, shadow.score)

    def _score(self, variant: str, label: int, score: float) -> None:
        self._labels[variant].append(label)
        self._scores[variant].append(score)

    def _take_dead_letter(self, record: Record) -> None:
        letter = decoder(DeadLetter).decode(record.value or b"")
        if letter.offset >= self._label_offsets.get(letter.partition, 0):
            self.unmatched[letter.reason] += 1

    def _take_window(self, record: Record) -> None:
        window = decoder(SeenWindow).decode(record.value or b"")
        self.windows[window.number] = window

    def _take_update(self, record: Record) -> None:
        update = decoder(SeenUpdate).decode(record.value or b"")
        if update.lineage == ONLINE:
            self._learnt = max(self._learnt, update.last_offset + 1 - self._samples_offset)

    def _take_checkpoint(self, record: Record) -> None:
        if record.key == _ARCHIVE:
            offset = decoder(SeenCheckpoint).decode(record.value or b"").offsets[self._topic]
            self._archived = max(self._archived, offset - self._samples_offset)

    def _take_version(self, record: Record) -> None:
        self.versions.add(decoder(SeenVersion).decode(record.value or b"").model_id)
