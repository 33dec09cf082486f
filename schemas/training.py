"""How a stream's samples are archived and its model trained anew: two tables of its declaration. See `streams`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from schemas.quantities import Count, Minutes, NotNegative, Share, SomeDays, SomeMinutes

if TYPE_CHECKING:
    from schemas.streams import StreamSpec

Reason = Literal["accuracy", "false_positive_rate", "latency", "error_drift", "drift", "schedule", "manual"]
"""Why training anew is asked for."""

Approval = Literal["manual", "shadow", "rollout", "auto"]
GateMetric = Literal["roc_auc", "accuracy", "log_loss", "brier"]
Value = bool | int | float | str
OF_THE_RUN: Final = frozenset({"feature_names", "classes", "seed", "threads"})
"""What a run gives to its trainer beside the parameters, by these names."""


class ArchiveSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How samples are kept beyond the retention of their topic.

    A chunk of the samples log becomes Parquet files, one for each event date in it. It ends after `samples`, or before
    the first record that Kafka took in another span of `minutes` than its first one.
    """

    enabled: Annotated[bool, "Whether samples go to Parquet files in the artifact store."] = True
    samples: Annotated[Annotated[int, msgspec.Meta(ge=100, le=1_000_000)], "The most samples of a chunk."] = 50_000
    minutes: Annotated[SomeMinutes, "The longest time, by Kafka's clock, that a chunk spans."] = 60


class SearchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hyper-parameters are searched, on the validation data. Needs the extra `train` (Optuna).

    `space` gives each parameter either `[low, high]`, which are whole numbers or others, or a table with `low`, `high`
    and optionally `log` or `step`, or a table with `choices`.
    """

    method: Annotated[Literal["tpe", "random", "grid"], "How the next values are chosen."] = "tpe"
    trials: Annotated[Count, "How many are tried."] = 30
    parallel: Annotated[Annotated[int, msgspec.Meta(ge=1, le=64)], "Processes that try at the same time."] = 1
    minutes: Annotated[Minutes, "When not 0, no trial begins after so long."] = 0
    prune: Annotated[bool, "Whether a trial that is behind the median of the others is given up."] = True
    space: Annotated[
        Annotated[
            dict[str, tuple[float | int, float | int] | dict[str, Value | list[Value]]],
            msgspec.Meta(description="a table: by parameter `[low, high]`, `{low, high, log}` or `{choices}`"),
        ],
        "The parameters that are searched.",
    ] = {}

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        where = f"stream {stream.name!r}: training.search"
        if not self.space:
            return [f"{where} has no space: name the parameters to search"]
        return [
            f"{where}.space.{name} must be [low, high], or a table with low and high (and log or step), or choices"
            for name, given in self.space.items()
            if not _is_range(given)
        ]


class GatesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must be before anybody is asked to use it, all on the test data.

    The gain over the champion counts when it is at least `min_gain` of the champion's figure, and when 0 lies outside
    the interval of the difference: at confidence 1 − `alpha`, two-sided, with the events of an entity as one.
    """

    metric: Annotated[
        GateMetric | None, "What is compared with the champion; else `roc_auc`, or `log_loss` of several classes."
    ] = None
    min_gain: Annotated[NotNegative, "By how much of the champion's figure it must be better."] = 0.02
    alpha: Annotated[
        Annotated[float, msgspec.Meta(gt=0, lt=1)], "The chance that a gain is called one, and is luck."
    ] = 0.05
    min_auc: Annotated[Share | None, "The least ROC AUC."] = None
    min_precision: Annotated[Share | None, "The least precision, at the stream's threshold."] = None
    min_recall: Annotated[Share | None, "The least recall, at the stream's threshold."] = None
    backtest: Annotated[
        bool, "Whether the test data is replayed, too: more alerts than the champion's are refused."
    ] = False

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        found = []
        if stream.task == "multiclass" and (self.metric == "roc_auc" or self.min_auc is not None):
            found.append(f"stream {stream.name!r}: training.gates: several classes have no one ROC AUC")
        if stream.task == "anomaly" and self.metric in ("log_loss", "brier"):
            found.append(f"stream {stream.name!r}: an anomaly score is no probability, so it has no {self.metric}")
        return found


class TrainingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a new model is made when that is asked for, and what then becomes of it.

    The samples are those of the newest `days` or the newest `samples`, by event time, without those whose labels may
    still come. In the order of event time the first are trained on, then come those that decide when to stop and which
    parameters are best, and the last are the test.
    """

    trainer: Annotated[str, "What trains, by the name of its entry point."] = "xgboost"
    parameters: Annotated[dict[str, Value], "What the trainer takes."] = {}
    days: Annotated[SomeDays | None, "Train on so many days of event time; else 90, unless `samples` is set."] = None
    samples: Annotated[Count | None, "Train on so many samples instead."] = None
    min_samples: Annotated[Count, "With fewer, no model is made."] = 1000
    sql: Annotated[
        str, "A query that gives the samples instead of the archive and the log; see `training_sql_url`."
    ] = ""
    validation_share: Annotated[Annotated[float, msgspec.Meta(gt=0, le=0.5)], "The share of the middle."] = 0.1
    test_share: Annotated[Annotated[float, msgspec.Meta(gt=0, le=0.5)], "The share of the end."] = 0.2
    folds: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=20)],
        "When not 0, the parameters are tried on so many ever longer beginnings of the data, each judged on what "
        "follows it.",
    ] = 0
    search: SearchSpec | None = None
    gates: GatesSpec = GatesSpec()
    approve: Annotated[
        Approval,
        "What becomes of a candidate that passed: an alert asks a person, or it becomes a shadow, begins a rollout, or "
        "is promoted.",
    ] = "manual"
    reasons: Annotated[
        tuple[Reason, ...], "What it is done for; other requests are skipped. `manual` always counts."
    ] = ("accuracy", "false_positive_rate", "error_drift", "drift", "schedule")
    schedule: Annotated[
        str, "When it is asked for without any other reason: a cron expression, by the time of labels."
    ] = ""
    time_zone: Annotated[str, "The time zone of `schedule`."] = "UTC"
    cooldown_minutes: Annotated[
        Minutes,
        "After a run, whatever it came to, no request of the next so many minutes of the stream's time counts, but one "
        "by hand.",
    ] = 24 * 60
    attempts: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=20)], "How often a run that something else than its data ended is tried."
    ] = 3
    max_minutes: Annotated[SomeMinutes, "A run of which one attempt takes longer is ended."] = 4 * 60

    def problems(self, stream: "StreamSpec") -> list[str]:
        """Return one sentence for each thing that is wrong with this in `stream`."""
        where = f"stream {stream.name!r}: training"
        found = []
        if self.days is not None and self.samples is not None:
            found.append(f"{where} has either days or samples")
        if self.samples is not None and self.samples < self.min_samples:
            found.append(f"{where}: samples {self.samples} is less than min_samples {self.min_samples}")
        if self.validation_share + self.test_share > 0.8:
            found.append(f"{where}: validation_share and test_share leave less than a fifth to train on")
        if self.search is not None:
            found += self.search.problems(stream)
            if both := sorted(self.search.space.keys() & self.parameters.keys()):
                found.append(f"{where}: {', '.join(both)} cannot be given and searched")
        if self.misnamed:
            found.append(f"{where}: {self.misnamed}")
        found += [f"{where}.{problem}" for problem in self._schedule_problems()]
        return found + self.gates.problems(stream)

    @property
    def misnamed(self) -> str:
        """A sentence on parameters that are given or searched and that no trainer can have; empty if there is none."""
        searched = self.search.space.keys() if self.search is not None else set[str]()
        taken = ", ".join(sorted(OF_THE_RUN & (self.parameters.keys() | searched)))
        return f"{taken} cannot be given or searched: the run itself sets that" if taken else ""

    def _schedule_problems(self) -> list[str]:
        if not self.schedule:
            return []
        found = []
        if not _is_schedule(self.schedule):
            found.append(
                f"schedule {self.schedule!r} is no cron expression of five fields (minute, hour, day, month, weekday) "
                "with a moment that ever comes, such as '0 3 * * mon'"
            )
        if not _is_time_zone(self.time_zone):
            found.append(f"time_zone {self.time_zone!r} is not known on this machine; write one such as Europe/Zurich")
        if "schedule" not in self.reasons:
            found.append("reasons leaves out 'schedule', so the schedule would do nothing")
        return found


def _is_schedule(expression: str) -> bool:
    """Whether this has five fields, none of them random or hashed, and a moment ever comes."""
    from croniter import croniter  # most streams have no schedule

    fields = expression.split()
    if len(fields) != 5 or any(part[:1] in "rRhH" for field in fields for part in field.split(",")):
        return False
    try:
        croniter(expression, datetime(2000, 1, 1, tzinfo=UTC)).get_next()
    except (ValueError, KeyError):  # croniter's own errors are ValueErrors
        return False
    return True


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return False
    return True


def _is_range(given: object) -> bool:
    """Whether a parameter's space is one of the forms that SearchSpec names."""
    if isinstance(given, tuple):
        return bool(given[0] < given[1])
    assert isinstance(given, dict)
    if "choices" in given:
        return given.keys() == {"choices"} and isinstance(given["choices"], list) and bool(given["choices"])
    low, high = given.get("low"), given.get("high")
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or given.keys() - {"low", "high", "log", "step"} or {"log", "step"} <= given.keys():
        return False
    return bool(low < high)  # type: ignore[operator]
