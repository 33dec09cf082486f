"""What the live page shows: one JSON document, made anew once a second.

Times are milliseconds since the epoch, shares and figures are from 0 to 1, and what is not known is null. The script
in `static` draws this and nothing else, so a field that is renamed here is renamed there.
"""

from typing import Final, Literal

import msgspec

Level = Literal["ok", "watch", "act"]
WORST_FIRST: Final[tuple[Level, ...]] = ("act", "watch", "ok")


class Part(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every part of the document."""


class State(Part, frozen=True, kw_only=True, gc=False):
    """The answer of the first five seconds: whether the models are well; if not, what is worst and what to do.

    `sentence` stays the same while what it tells of does, so that it can be read aloud; `figures` change at any time.
    """

    level: Level
    sentence: str
    figures: str = ""


class Flow(Part, frozen=True, kw_only=True, gc=False):
    """What goes in and out: events per second, events not yet answered, and the time from record to score.

    `history` has one point a second of the last five minutes, oldest first: (time, in, out, p99 in ms or null).
    """

    in_eps: float | None = None
    out_eps: float | None = None
    lag: int | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    history: tuple[tuple[int, float, float, float | None], ...] = ()


class Champion(Part, frozen=True, kw_only=True, gc=False):
    """The model that serves, and since when; `since_before` where that is only the oldest routing that was read."""

    model_id: str
    version: str
    algorithm: str
    since_time_ms: int
    since_before: bool = False


class OtherModel(Part, frozen=True, kw_only=True, gc=False):
    """A model beside the champion; a challenger has a share of the traffic, a shadow only looks on."""

    variant: str
    model_id: str
    role: Literal["shadow", "challenger"]
    share: float | None = None


class WindowFigure(Part, frozen=True, kw_only=True, gc=False, array_like=True):
    """How good a variant was in one window of `n` events; `low` to `high` is the 95% interval, where there is one.

    One that is not `mature` is a first look: labels may still come.
    """

    to_time_ms: int
    value: float | None
    low: float | None
    high: float | None
    n: int
    mature: bool = True


class Models(Part, frozen=True, kw_only=True, gc=False):
    """Who serves, who else scores, and how good each variant was, window by window, by `figure`; at most four variants.

    A variant may have been another model in earlier windows. `newest` is by variant the newest mature window that has
    a value and is of the model that is this variant now, or of an earlier snapshot of its lineage: what is to be told.
    """

    champion: Champion | None = None
    others: tuple[OtherModel, ...] = ()
    figure: Literal["roc_auc", "accuracy"] = "roc_auc"
    windows: dict[str, tuple[WindowFigure, ...]] = {}
    newest: dict[str, WindowFigure] = {}


class Column(Part, frozen=True, kw_only=True, gc=False):
    """One column of the newest judged window: the shares of its bins at first and now, and its PSI over time."""

    name: str
    severity: str
    reason: str
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    history: tuple[float | None, ...]


class Drift(Part, frozen=True, kw_only=True, gc=False):
    """The newest judged window; `columns` begin with the worst. `over` when its model has not scored since."""

    severity: str
    drifted_share: float
    number: int
    n: int
    to_time_ms: int
    recommendation: str
    columns: tuple[Column, ...]
    model_id: str = ""
    over: bool = False


class Labels(Part, frozen=True, kw_only=True, gc=False):
    """How long labels take, and how many predictions are pending: they wait for theirs."""

    delay_p50_ms: float | None = None
    delay_p95_ms: float | None = None
    pending: int | None = None


class ShownAlert(Part, frozen=True, kw_only=True, gc=False):
    """An alert; one that is not `current` is over, or a later one of its kind and subject has taken its place.

    `raised_time_ms` may be event time, as in a replay; `told_time_ms` is Kafka's timestamp.
    """

    id: str
    severity: str
    kind: str
    subject: str
    message: str
    recommendation: str
    raised_time_ms: int
    told_time_ms: int
    current: bool


class Moment(Part, frozen=True, kw_only=True, gc=False):
    """Something that happened to the models: what, to which, and why."""

    time_ms: int
    what: Literal["registered", "training", "promoted", "rolled_back", "experiment", "shadow", "refused", "other"]
    title: str
    detail: str


class ShownDeadLetter(Part, frozen=True, kw_only=True, gc=False):
    """A record that could not be used; `original` is the beginning of it, as text."""

    topic: str
    partition: int
    offset: int
    reason: str
    message: str
    original: str
    dead_time_ms: int


class DeadLetters(Part, frozen=True, kw_only=True, gc=False):
    """How many wait to be sent again, why they were dead, and a few of them, newest first.

    `at_least` when there are older ones that were not read, or are not kept: these may wait, or have been sent again.
    """

    count: int = 0
    at_least: bool = False
    reasons: dict[str, int] = {}
    examples: tuple[ShownDeadLetter, ...] = ()


class Arm(Part, frozen=True, kw_only=True, gc=False):
    """One variant of an experiment; the difference from the champion is positive where the variant is better."""

    variant: str
    model_id: str
    share: float
    samples: int
    mean: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class ShownExperiment(Part, frozen=True, kw_only=True, gc=False):
    """The experiment or rollout that runs, and what is known of it."""

    id: str
    kind: str
    metric: str
    verdict: str
    why: str
    arms: tuple[Arm, ...]


class ShownTraining(Part, frozen=True, kw_only=True, gc=False):
    """The training run that is under way, or the newest one."""

    run_id: str
    phase: str
    share: float | None
    outcome: str | None
    message: str
    time_ms: int


class StreamBoard(Part, frozen=True, kw_only=True, gc=False):
    """Everything about one stream."""

    name: str
    task: str
    state: State
    flow: Flow
    models: Models
    drift: Drift | None
    labels: Labels
    alerts: tuple[ShownAlert, ...]
    timeline: tuple[Moment, ...]
    dead_letters: DeadLetters
    experiment: ShownExperiment | None
    training: ShownTraining | None


class StreamState(Part, frozen=True, kw_only=True, gc=False):
    """One stream among all."""

    name: str
    state: State


class Board(Part, frozen=True, kw_only=True, gc=False):
    """The whole document: the states of all streams as they are declared, and everything about the one asked for.

    `problem` is a sentence for the viewer while the topics cannot be read; what was known before is there all the same.
    """

    generated_time_ms: int
    streams: tuple[StreamState, ...]
    stream: StreamBoard | None = None
    problem: str = ""
