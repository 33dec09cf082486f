"""The peer: a bare river loop over decoded samples. It imports nothing of Penstock and commits nothing.

    python -m benchmarks.bare_learner BOOTSTRAP SAMPLES_TOPIC MODEL

All samples are read and decoded before the clock starts: a dict by feature name for each, without the missing values,
rounded to 32 bits as Penstock's matrices are. The rate is that of the samples between the 10th and the 90th percent.
Prints one `Learnt` in JSON.
"""

import gc
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler
from river.tree import HoeffdingTreeClassifier

PROBES: Final = 1_000
_FEATURES: Final = [f"f{i}" for i in range(10)]

Decoded = tuple[dict[str, float], int]


class Learnt(msgspec.Struct):
    """What a loop came to: its rate, the numbers of its model by name, and how it scores the last 1,000 samples."""

    steady_eps: float
    numbers: dict[str, float]
    scores: list[float]


class _Sample(msgspec.Struct):
    features: tuple[float | None, ...]
    label: int


def logistic_numbers(scaler: Any, regression: Any, names: Sequence[Any]) -> dict[str, float]:
    """Return every number of a scaler and a regression; `names` are what they call the features, in order."""
    found = {"intercept": float(regression.intercept)}
    for feature, name in zip(_FEATURES, names, strict=True):
        found[f"{feature}.weight"] = regression.weights[name]
        found[f"{feature}.count"] = scaler.counts[name]
        found[f"{feature}.mean"] = scaler.means[name]
        found[f"{feature}.variance"] = scaler.vars[name]
    return found


def tree_numbers(tree: Any) -> dict[str, float]:
    """Return the shape of a tree, and what each leaf has seen of each class."""
    found = {"nodes": tree.n_nodes, "leaves": tree.n_leaves, "height": tree.height}
    root = tree._root
    for number, leaf in enumerate(root.iter_leaves() if hasattr(root, "iter_leaves") else [root]):
        found |= {f"leaf {number}.class {label}": weight for label, weight in leaf.stats.items()}
    return found


def learn(model: Any, samples: Sequence[Decoded]) -> float:
    """Let the model learn all samples; return the steady rate, in samples per second."""
    first, last = int(0.1 * len(samples)), int(0.9 * len(samples))
    for x, y in samples[:first]:
        model.learn_one(x, y)
    began = time.perf_counter()
    for x, y in samples[first:last]:
        model.learn_one(x, y)
    taken_s = time.perf_counter() - began
    for x, y in samples[last:]:
        model.learn_one(x, y)
    return (last - first) / taken_s


def read(bootstrap: str, topic: str) -> list[Decoded]:
    """Return all committed samples of the topic's partition 0, decoded."""
    options = {
        "bootstrap.servers": bootstrap,
        "group.id": "unused",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    decode = msgspec.json.Decoder(_Sample).decode
    decoded: list[Decoded] = []
    while True:
        for message in consumer.consume(10_000, 1.0):
            error = message.error()
            if error is None:
                sample = decode(message.value())
                values = np.array(sample.features, dtype=np.float32).tolist()  # None becomes NaN
                x = {name: value for name, value in zip(_FEATURES, values, strict=True) if value == value}
                decoded.append((x, sample.label))
            elif error.code() == KafkaError._PARTITION_EOF:
                consumer.close()
                return decoded
            else:
                raise KafkaException(error)


def main(bootstrap: str, topic: str, model_name: str) -> None:
    """Learn all of `topic` with the model called `logistic` or `tree`, and print what came of it."""
    samples = read(bootstrap, topic)
    gc.collect()
    gc.freeze()  # the samples are not to be looked through again and again
    model = StandardScaler() | LogisticRegression() if model_name == "logistic" else HoeffdingTreeClassifier()
    eps = learn(model, samples)
    if model_name == "logistic":
        numbers = logistic_numbers(model["StandardScaler"], model["LogisticRegression"], _FEATURES)
    else:
        numbers = tree_numbers(model)
    scores = [model.predict_proba_one(x).get(1, 0.0) for x, _ in samples[-PROBES:]]
    print(msgspec.json.encode(Learnt(eps, numbers, scores)).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
