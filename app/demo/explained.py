"""The demo's last question: do the models, executed again, give the very scores that were logged?"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.demo.stage import Stage
from app.explain import Examined, examine_sample
from app.settings import load_settings
from schemas.errors import PenstockError
from schemas.streams import StreamSpec
from stream.batches import TopicPartition

SAMPLE: Final = 1_000
_SEED: Final = 5


@dataclass(frozen=True, slots=True)
class Explained:
    """`n` random predictions were executed again; `identical` have the score that was logged.

    So have their shadows, whose models were still there. `why` is a sentence on the first that has not.
    """

    n: int = 0
    identical: int = 0
    why: str = ""

    @classmethod
    def of(cls, examined: Sequence[Examined]) -> "Explained":
        """Count them."""
        wrong = [
            (one.logged.place, said)
            for one in examined
            for said in (*one.wrong, *([one.served] if one.not_executed else []))
        ]
        why = ""
        if wrong:
            (partition, offset), said = wrong[0]
            found = said.problem or f"logged {said.logged!r}, executed again {said.score!r}"
            why = f"{said.model_id} at {partition}:{offset} of the predictions: {found}"
        return cls(len(examined), sum(not one.wrong and not one.not_executed for one in examined), why)

    def problems(self, predictions: int) -> list[str]:
        """Return a sentence unless enough of the demo's `predictions` were executed again, all with the same score."""
        wanted = min(SAMPLE, predictions)
        if self.n < wanted:
            why = f" ({self.why})" if self.why else ""
            return [f"{wanted:,} predictions were to be executed again, but only {self.n:,} were found{why}"]
        if self.identical < self.n:
            return [f"of {self.n:,} predictions executed again, only {self.identical:,} are identical ({self.why})"]
        return []


async def execute_again(stage: Stage, spec: StreamSpec, starts: Mapping[TopicPartition, int]) -> Explained:
    """Do what `penstock explain --random 1000` does, out of the predictions since `starts` that are still held.

    Takes about a second: the embedded broker holds the newest 5 MB of each partition.
    """
    settings = load_settings(stage.environment)  # those of the demo's own processes
    connection = settings.kafka_connection()
    try:
        return Explained.of(await examine_sample(connection, settings, spec, SAMPLE, random.Random(_SEED), starts))
    except PenstockError as error:  # the demo has more to tell than this
        return Explained(why=str(error))
