"""A made-up stream that any number of events can be drawn of, the same ones for the same seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import xgboost
from numpy.typing import NDArray

STREAM: Final = "bench"
PARTITIONS: Final = 4
FEATURES: Final = tuple(f"f{i}" for i in range(10))
_MISSING_SHARE: Final = 0.01
_ENTITIES: Final = 10_000
FIRST_EVENT_TIME_MS: Final = 1_700_000_000_000  # each event is a millisecond later

CONFIG: Final = f"""\
[streams.{STREAM}]
features = {list(FEATURES)}
partitions = {PARTITIONS}
"""
"""What penstock.toml says of this stream."""


def draw(events: int, seed: int) -> NDArray[np.float64]:
    """Return feature values, shape (events, 10): normal, four decimals, NaN where missing (1%)."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(events, len(FEATURES))).round(4)
    values[random.random(values.shape) < _MISSING_SHARE] = np.nan
    return values


def train(seed: int, trees: int = 100) -> xgboost.Booster:
    """Return a classifier of depth 6, trained on 20,000 events with a known rule and some noise."""
    random = np.random.default_rng(seed)
    values = draw(20_000, seed)
    matrix = xgboost.DMatrix(values.astype(np.float32), label=_truth(values, random))
    parameters = {"objective": "binary:logistic", "max_depth": 6, "nthread": 1, "seed": seed}
    return xgboost.train(parameters, matrix, num_boost_round=trees)


def labels(values: NDArray[np.float64], seed: int) -> list[int]:
    """Return what came true of each row, 0 or 1, by the same rule that the classifier was trained on."""
    return [int(true) for true in _truth(values, np.random.default_rng(seed))]


def _truth(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.bool_]:
    filled = np.nan_to_num(values)
    logits = filled[:, 0] + filled[:, 1] * filled[:, 2] - np.abs(filled[:, 3]) + random.normal(size=len(values))
    return logits > 0


def save(booster: xgboost.Booster, path: Path) -> Path:
    """Write the model as UBJ, which is what `penstock models register` takes."""
    booster.save_model(path)
    return path


def save_rows(values: NDArray[np.float64], path: Path) -> Path:
    """Write rows of feature values as CSV, which is what `penstock models register --baseline-data` takes."""
    np.savetxt(path, values, fmt="%.4f", delimiter=",", header=",".join(FEATURES), comments="")
    return path


def event_id(number: int) -> str:
    """Return the id of the event in row `number`."""
    return f"e{number:08d}"


def entity_id(number: int) -> str:
    """Return the entity of the event in row `number`; 10,000 entities take turns."""
    return f"entity-{number * 7919 % _ENTITIES:05d}"


def documents(values: NDArray[np.float64], first: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and JSON value of each row's feature event; rows are numbered from `first`."""
    encode = msgspec.json.Encoder().encode
    for number, row in enumerate(values.tolist(), start=first):
        entity = entity_id(number)
        yield (
            entity.encode(),
            encode(
                {
                    "event_id": event_id(number),
                    "entity_id": entity,
                    "event_time_ms": FIRST_EVENT_TIME_MS + number,
                    "features": dict(zip(FEATURES, row, strict=True)),  # NaN becomes null
                }
            ),
        )


def expected_scores(booster: xgboost.Booster, values: NDArray[np.float64]) -> dict[str, float]:
    """Return the score of every event by its id, from one direct prediction."""
    scores = booster.inplace_predict(values.astype(np.float32), validate_features=False)
    return {event_id(number): score for number, score in enumerate(scores.tolist())}
