"""Faust in batches: `stream.take_events`, one call of the model for each batch, sends awaited together.

It follows "Streams", on `take` (https://faust-streaming.github.io/faust/userguide/streams.html), "Agents", on
producing, and the "Configuration Reference" (https://faust-streaming.github.io/faust/userguide/settings.html).

All sends of a batch are awaited together before the next one is asked for, and then Faust takes the batch for
acknowledged. `send` returns when the prediction is in the producer's buffer, not when the broker has answered, so that
a crash can lose what stood there. Faust commits every 2.8 s or 10,000 events.
"""

import asyncio
import logging
import tempfile
from typing import Final

import faust
from work import Job, Work, read_job

_BATCH_EVENTS: Final = 4_096
_WITHIN_S: Final = 0.05  # what a lone event waits for others, at most


def make_app(job: Job, folder: str) -> faust.App:
    """Return the app with its one agent; `folder` is for what Faust stores."""
    app = faust.App(
        job.group,  # the app's id is its consumer group
        broker=f"kafka://{job.bootstrap}",
        key_serializer="raw",
        value_serializer="raw",  # the shared work decodes
        producer_acks=-1,  # all
        producer_linger=0.01,  # at 0, the default, sends of one batch go out in many small requests
        producer_max_batch_size=768 * 1024,  # the default of 16 KB makes many small ones
        producer_max_request_size=8 * 1024 * 1024,  # all partitions in one request
        consumer_max_fetch_size=4 * 1024 * 1024,  # few fetches
        stream_buffer_maxsize=2 * _BATCH_EVENTS,  # the next batch can wait in it
        datadir=folder,
        web_enabled=False,
        topic_allow_declare=False,  # the topics are there
        topic_disable_leader=True,  # its own topic would have to be made
    )
    source = app.topic(job.source, key_type=bytes, value_type=bytes)
    predictions = app.topic(job.predictions, key_type=bytes, value_type=bytes)
    histograms = app.topic(job.histograms, value_type=bytes)
    work = Work(job)

    @app.agent(source)
    async def score(stream: faust.StreamT[bytes]) -> None:
        async for events in stream.take_events(_BATCH_EVENTS, within=_WITHIN_S):
            messages = [event.message for event in events]
            outputs = work.score(
                [event.value for event in events],
                [message.partition for message in messages],
                [message.offset for message in messages],
                [round(message.timestamp * 1000) for message in messages],
            )
            sends = [
                predictions.send(key=event.key, value=output, partition=message.partition)
                for event, message, output in zip(events, messages, outputs, strict=True)
            ]
            counted = work.histogram()
            if counted is not None:
                sends.append(histograms.send(value=counted))
            await asyncio.gather(*sends)

    return app


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="faust-") as data:
        # Not WARNING: from there on Faust keeps its spinner, and sets the root logger to DEBUG for it.
        faust.Worker(make_app(read_job(), data), loglevel=logging.INFO).execute_from_commandline()
