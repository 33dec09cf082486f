"""The arithmetic: medians over turns, ratios within rounds, and which goals are met."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from benchmarks.peers.latency import Latency
from benchmarks.peers.throughput import Speed

_BESIDE: Final = {
    "aiokafka": "aiokafka_loop",
    "confluent": "confluent_loop",
    "bytewax": "bytewax",
    "quix": "quix",
    "faust": "faust_event",
    "faust_take": "faust_take",
    "pathway": "pathway",
}
_LEAST_RATIOS: Final = {"aiokafka": 0.95, "bytewax": 1.5, "quix": 5.0, "faust": 50.0}
_MOST_LATENCY_RATIO: Final = 1.2
_MOST_P99_MS: Final = 25.0
_US: Final = "penstock"
_DELIVERIES: Final = {_US: "exactly once", "penstock_at_least_once": "at least once"}
_BARE: Final = "aiokafka_loop"


class Taken(NamedTuple):
    """All turns of one contestant, in the order of the rounds."""

    speeds: list[Speed]
    latencies: list[Latency]

    def p99_ms(self, rate: int) -> list[float | None]:
        """Return the 99th percentile of each turn at this rate; None where it fell behind."""
        return [each.p99_ms for each in self.latencies if each.rate == rate]

    def fell_behind(self, rate: int) -> bool:
        """Return whether it fell behind at this rate in any turn."""
        return any(each.fell_behind for each in self.latencies if each.rate == rate)


def summary(turns: Mapping[str, Taken], versions: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the figures of each contestant, Penstock's ratios, its goals, and every single turn.

    A ratio is the median over rounds of what it was in each round: so it compares turns that were close in time.
    """
    ratios = {name: _ratio(turns, peer) for name, peer in _BESIDE.items()}
    return {
        "contestants": {name: _figures(taken) | {"versions": versions[name]} for name, taken in turns.items()},
        "ratios": ratios,
        "ratios_are": "medians over the rounds of penstock's figure by the other's in the same round",
        "goals": speed_goals(ratios) | latency_goals(turns),
        "runs": {
            name: {
                "throughput": [each._asdict() for each in taken.speeds],
                "latency": [each._asdict() for each in taken.latencies],
            }
            for name, taken in turns.items()
        },
    }


def speed_goals(ratios: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """Return of each goal its figure and whether it is met; None where nothing was measured."""
    found: dict[str, dict[str, Any]] = {}
    for name, least in _LEAST_RATIOS.items():
        ratio = ratios[name]
        met = None if ratio is None else ratio >= least
        found[f"exactly once: at least {least:g} x {_BESIDE[name]}"] = {"figure": ratio, "met": met}
    return found


def latency_goals(turns: Mapping[str, Taken]) -> dict[str, dict[str, Any]]:
    """Return the same of latency, for each way to deliver.

    A goal at a rate is missed where Penstock fell behind, and has no figure then.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, delivery in _DELIVERIES.items():
        taken = turns.get(name, Taken([], []))
        for rate, figure, most, unit in (
            (1_000, _latency_ratio(turns, name), _MOST_LATENCY_RATIO, f"x {_BARE}"),
            (10_000, _median(taken.p99_ms(10_000)), _MOST_P99_MS, "ms"),
        ):
            met = False if taken.fell_behind(rate) else None if figure is None else figure <= most
            found[f"{delivery}: p99 at {rate:,} events/s at most {most:g} {unit}"] = {"figure": figure, "met": met}
    return found


def _figures(taken: Taken) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if taken.speeds:
        eps = [each.eps for each in taken.speeds]
        figures = {
            "eps": round(median(eps)),
            "eps_spread": [round(min(eps)), round(max(eps))],
            "cpu_us": round(median(each.cpu_us for each in taken.speeds), 2),
            "peak_mb": round(median(each.peak_mb for each in taken.speeds), 1),
            "startup_s": round(median(each.startup_s for each in taken.speeds), 2),
            "partial": any(each.partial for each in taken.speeds),
        }
    rates = sorted({each.rate for each in taken.latencies})
    return figures | {"latency": {str(rate): _latency(taken, rate) for rate in rates}}


def _latency(taken: Taken, rate: int) -> dict[str, Any]:
    """Return the medians over turns; nulls, and the reason, where the contestant fell behind in any."""
    found = [each for each in taken.latencies if each.rate == rate]
    kinds = ("p50_ms", "p99_ms", "max_ms")
    figures: dict[str, Any] = {kind: _median([getattr(each, kind) for each in found]) for kind in kinds}
    figures["late_ms"] = max(each.late_ms for each in found)
    return figures | ({"note": "fell behind"} if taken.fell_behind(rate) else {})


def _ratio(turns: Mapping[str, Taken], peer: str) -> float | None:
    if _US not in turns or peer not in turns or not turns[peer].speeds:
        return None
    pairs = zip(turns[_US].speeds, turns[peer].speeds, strict=True)
    return round(median(ours.eps / theirs.eps for ours, theirs in pairs), 3)


def _latency_ratio(turns: Mapping[str, Taken], us: str) -> float | None:
    """Return the median ratio of p99 to the bare loop's at 1,000 events/s."""
    if us not in turns or _BARE not in turns:
        return None
    pairs = list(zip(turns[us].p99_ms(1_000), turns[_BARE].p99_ms(1_000), strict=True))
    return _median([None if ours is None or theirs is None else ours / theirs for ours, theirs in pairs], 3)


def _median(values: Sequence[float | None], digits: int = 2) -> float | None:
    """Return the median; None when one is None or there is none."""
    known = [value for value in values if value is not None]
    return round(median(known), digits) if known and len(known) == len(values) else None
