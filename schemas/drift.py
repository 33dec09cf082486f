"""The events of drift: what was counted of scored events, and what became of a window. See `events`."""

from typing import Literal

from schemas.event import Event


class ColumnCounts(Event, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What was counted of one column: so many of its values in each cell of the baseline.

    `counts` belong to the cells at the positions `cells`, ascending, and the others are empty; without `cells` they
    are of all cells in their order. A missing value is in `missing` only.
    `sums` are those of z, z², z³ and z⁴ over the values, where z is the distance from the baseline's mean in its
    deviations (as they are where it has none). `below` and `above` sum how far values lie outside the baseline's range.
    """

    missing: int = 0
    cells: tuple[int, ...] = ()
    counts: tuple[int, ...]
    sums: tuple[float, float, float, float]
    below: float = 0.0
    above: float = 0.0


class PartialHistogram(Event, frozen=True, kw_only=True, gc=False):
    """What a task counted of some scored events: a record of `<s>.histograms`, committed with their predictions.

    The events stand in partition `partition` of `<s>.features`, from `from_offset` up to before `to_offset`; `n` of
    what is there was scored and counted. The times bound the events' own, both inclusive. `baseline` is the SHA-256
    of the baseline whose cells these are. `columns` are the stream's features in their order, then its predictions;
    these are missing where another variant than the champion served.
    """

    stream: str
    baseline: str
    model_id: str
    partition: int
    from_offset: int
    to_offset: int
    from_time_ms: int
    to_time_ms: int
    n: int
    columns: tuple[ColumnCounts, ...]


DriftSeverity = Literal["none", "low", "medium", "high", "critical"]


class ColumnDrift(Event, frozen=True, kw_only=True, gc=False):
    """How far one column of a window is from its baseline. A figure that cannot be computed is null.

    `judged` is false for a feature that is only counted, and for predictions where the baseline is of another model's.
    `reason` says in a few words why the column has drifted, or why it was not judged. `n` counts the values that are
    not missing. `p_value` is corrected for the number of tests. `psi` and the divergences are in nats, over the
    baseline's bins; `wasserstein_scaled` is over the baseline's deviation. `reference` and `current` are the shares of
    the bins, which `bins` names.
    """

    name: str
    judged: bool
    severity: DriftSeverity
    reason: str
    n: int
    missing_share: float | None
    unseen_share: float | None
    mean: float | None
    deviation: float | None
    skewness: float | None
    kurtosis: float | None
    psi: float | None
    kl_reference_current: float | None
    kl_current_reference: float | None
    jensen_shannon: float | None
    ks: float | None
    p_value: float | None
    wasserstein: float | None
    wasserstein_scaled: float | None
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


class DriftReport(Event, frozen=True, kw_only=True, gc=False):
    """What became of the features and predictions in one window: a record of `<s>.drift`.

    Windows are numbered in the order in which they were judged; the times bound their events' own, both inclusive.
    `drifted_share` is of the judged features. `predictions` are the model's scores, and its classes if it has some.
    `recommendation` is for a person; it is empty where nothing has drifted.
    """

    stream: str
    number: int
    model_id: str
    baseline: str
    from_time_ms: int
    to_time_ms: int
    n: int
    severity: DriftSeverity
    drifted_share: float
    features: tuple[ColumnDrift, ...]
    predictions: tuple[ColumnDrift, ...]
    recommendation: str
