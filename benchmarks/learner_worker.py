"""A worker of which only some consumer groups run: what `penstock worker --role learn` starts, without the others.

    python benchmarks/learner_worker.py GROUP...

The groups are named without the prefix: `learn-<lineage>` is one learner. Settings come from the environment and
penstock.toml, as ever.
"""

import asyncio
import logging
import os
import sys

from app.roles import RoleName
from app.settings import load_settings
from app.stages import StreamStages
from app.worker import run_worker
from stream.role import StageSpec


def main(*groups: str) -> None:
    """Run until SIGTERM."""
    all_stages = StreamStages.stages

    def chosen(self: StreamStages, role: RoleName) -> list[StageSpec]:
        return [stage for stage in all_stages(self, role) if stage.group in groups]

    setattr(StreamStages, "stages", chosen)  # noqa: B010  # no setting of the product does this
    settings = load_settings(os.environ)
    logging.basicConfig(level=settings.log_level)
    asyncio.run(run_worker(settings, settings.kafka_connection(), ["learn"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
