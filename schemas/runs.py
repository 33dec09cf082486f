"""The events of training runs. See `events`."""

from typing import Annotated, Final, Literal

import msgspec

from schemas.event import Event

Phase = Literal["waiting", "read", "search", "validate", "fit", "evaluate", "record", "ended"]
"""What a run is at, in this order; `search` and `validate` only where the stream wants them."""

Outcome = Literal["accepted", "rejected", "failed", "skipped"]
"""A model was registered and passed the gates; was registered and did not pass; none was made, for a reason; or the
requests came too soon after the last run, or for a reason that the stream does not train for."""


BECAUSE: Final = "asked_because"
"""The evidence of a request by hand that has a person's words."""

TRAINER: Final = "train"
"""Who registers candidates and sends commands, where it is a training run."""


class GateResult(Event, frozen=True, kw_only=True, gc=False):
    """What one gate said of a candidate: `message` is a sentence with the figures.

    `value` is what was measured and `limit` what it had to reach, where the gate is of a figure. `low` and `high` are
    the ends of the interval of a difference from the champion.
    """

    gate: str
    passed: bool
    message: str
    value: float | None = None
    limit: float | None = None
    low: float | None = None
    high: float | None = None


class TrainingEvent(Event, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a training run is at, or what became of it: a record of `<s>.training`.

    `share` (0 to 1) is how much of the phase is done, where that is known. A run, known by `run_id`, answers the
    requests `request_ids`, given for `reasons`; `attempt` counts from 1. With the phase `ended` comes the `outcome`,
    and `message` says why; there is exactly one such record for each run. `model_id` is the candidate, `follow_up`
    what was done with it. `asked_because` is why people asked, in their words. `samples` were read, with event times in
    [from_time_ms, to_time_ms). `time_ms` and `started_time_ms` are the worker's.
    """

    stream: str
    run_id: str
    request_ids: tuple[str, ...]
    reasons: tuple[str, ...]
    attempt: int
    phase: Phase
    time_ms: int
    started_time_ms: int
    message: str = ""
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    outcome: Outcome | None = None
    model_id: str = ""
    champion: str = ""
    asked_because: str = ""
    follow_up: str = ""
    gates: tuple[GateResult, ...] = ()
    metrics: dict[str, float] = {}
    samples: int = 0
    from_time_ms: int = 0
    to_time_ms: int = 0
