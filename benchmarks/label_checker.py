"""Exactly one outcome per label: the count that decides whether a run of join was right.

A sample is known by its event and revision, a dead letter by the place of its label. Every sample is compared with
what was sent, with a direct prediction, and with the committed prediction of the same event.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec

from benchmarks.checker import Place
from benchmarks.label_producer import Journaled
from benchmarks.label_script import Fate

_SHOWN: Final = 3
_SAME_AS_PREDICTED: Final = (
    "entity_id",
    "event_time_ms",
    "features",
    "score",
    "model_id",
    "variant",
    "deployment_revision",
    "scored_time_ms",
    "latency_ms",
    "shadows",
)


class Predicted(msgspec.Struct, frozen=True, gc=False):
    """A prediction, as a reader of its topic sees it."""

    event_id: str
    entity_id: str
    event_time_ms: int
    features: tuple[float | None, ...]
    score: float
    label: int
    model_id: str
    variant: str
    deployment_revision: int
    scored_time_ms: int
    latency_ms: int = 0
    shadows: msgspec.Raw = msgspec.Raw(b"")


class Sampled(msgspec.Struct, frozen=True, gc=False):
    """A sample, as a reader of its topic sees it."""

    event_id: str
    entity_id: str
    revision: int
    event_time_ms: int
    label_time_ms: int
    features: tuple[float | None, ...]
    label: int
    weight: float
    score: float
    predicted: int
    model_id: str
    variant: str
    deployment_revision: int
    scored_time_ms: int
    latency_ms: int = 0
    shadows: msgspec.Raw = msgspec.Raw(b"")
    replaces: int | None = None
    assumed: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A dead letter, as a reader of its topic sees it."""

    partition: int
    offset: int
    reason: str


@dataclass(frozen=True)
class Truth:
    """What every sample of an event must carry: its features, and the champion's score of them, by event number."""

    features: Callable[[int], tuple[float | None, ...]]
    score: Callable[[int], float]


@dataclass(frozen=True)
class LabelTally:
    """How samples and dead letters match the journal.

    `samples_duplicated` and `dead_letters_duplicated` are surplus ones, `_lost` are missing ones. `samples_unknown` and
    `dead_letters_unknown` are of what should have given none. `samples_wrong` carry something else than they should,
    `dead_letters_wrong` another reason. `examples` are sentences about some of these.
    """

    labels: int
    samples: int
    samples_lost: int
    samples_duplicated: int
    samples_unknown: int
    samples_wrong: int
    dead_letters: int
    dead_letters_lost: int
    dead_letters_duplicated: int
    dead_letters_unknown: int
    dead_letters_wrong: int
    examples: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether every label has exactly the outcome it should have."""
        return not any(
            value for name, value in asdict(self).items() if name not in ("labels", "samples", "dead_letters")
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name; the examples only when there are any."""
        return {name: value for name, value in asdict(self).items() if name != "examples" or value}


def tally(
    journal: Iterable[Journaled],
    predictions: Mapping[str, Predicted],
    samples: Sequence[Sampled],
    dead_letters: Sequence[Refused],
    truth: Truth,
) -> LabelTally:
    """Match what is committed with the journal. About 10 µs per sample."""
    lines = list(journal)
    due = {(line.fate.event_id, line.fate.revision): line.fate for line in lines if line.fate.outcome == "sample"}
    refused = {Place(line.partition, line.offset): line.fate for line in lines if line.fate.outcome == "dead"}
    found = Counter((sample.event_id, sample.revision) for sample in samples)
    dead = Counter(Place(letter.partition, letter.offset) for letter in dead_letters)
    wrong = [
        sentence
        for sample in samples
        if (fate := due.get((sample.event_id, sample.revision))) is not None
        and (sentence := _flaw(sample, fate, due, predictions, truth))
    ]
    misjudged = [
        f"{fate} became a dead letter for {letter.reason}"
        for letter in dead_letters
        if (fate := refused.get(Place(letter.partition, letter.offset))) is not None
        and fate.reason not in ("", letter.reason)
    ]
    examples = [
        *(f"no sample: {due[key]}" for key in sorted(due.keys() - found.keys())[:_SHOWN]),
        *(f"a sample of what should give none: {key}" for key in sorted(found.keys() - due.keys())[:_SHOWN]),
        *(f"no dead letter: {refused[place]}" for place in sorted(refused.keys() - dead.keys())[:_SHOWN]),
        *(
            f"a dead letter of what should give none: {place}"
            for place in sorted(dead.keys() - refused.keys())[:_SHOWN]
        ),
        *wrong[:_SHOWN],
        *misjudged[:_SHOWN],
    ]
    return LabelTally(
        labels=sum(not line.fate.assumed for line in lines),
        samples=len(samples),
        samples_lost=len(due.keys() - found.keys()),
        samples_duplicated=found.total() - len(found),
        samples_unknown=len(found.keys() - due.keys()),
        samples_wrong=len(wrong),
        dead_letters=len(dead_letters),
        dead_letters_lost=len(refused.keys() - dead.keys()),
        dead_letters_duplicated=dead.total() - len(dead),
        dead_letters_unknown=len(dead.keys() - refused.keys()),
        dead_letters_wrong=len(misjudged),
        examples=tuple(examples),
    )


def _flaw(
    sample: Sampled,
    fate: Fate,
    due: Mapping[tuple[str, int], Fate],
    predictions: Mapping[str, Predicted],
    truth: Truth,
) -> str:
    """Return what is wrong with a sample; an empty text when nothing is."""
    before = due[fate.event_id, fate.revision - 1].label if fate.revision else None
    known = {
        "entity_id": fate.entity_id,
        "event_time_ms": fate.event_time_ms,
        "label": fate.label,
        "label_time_ms": fate.label_time_ms,
        "assumed": fate.assumed,
        "replaces": before,
        "weight": 1.0,
        "features": truth.features(fate.number),
        "score": truth.score(fate.number),
    }
    predicted = predictions.get(sample.event_id)
    if predicted is None:
        return f"sample {sample.event_id} has no prediction"
    known |= {"predicted": predicted.label}
    differing = [name for name, value in known.items() if getattr(sample, name) != value]
    differing += [n for n in _SAME_AS_PREDICTED if getattr(sample, n) != getattr(predicted, n) and n not in differing]
    return (
        f"sample {sample.event_id}, revision {sample.revision}, has another {', '.join(differing)}" if differing else ""
    )
