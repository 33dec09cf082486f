"""Faust as its documentation shows it first: one agent, one event at a time, one awaited send for each.

It follows "Agents" (https://faust-streaming.github.io/faust/userguide/agents.html), "Streams", on `events()`, and the
"Configuration Reference" (https://faust-streaming.github.io/faust/userguide/settings.html).

An event is acknowledged to Faust when the loop asks for the next one, which is after `send` was awaited: that waits
until the prediction is in the producer's buffer, not for the broker's answer, so that a crash can lose what stood
there. Faust commits what was acknowledged to it every 2.8 s or 10,000 events.
"""

import logging
import tempfile

import faust
from work import Job, Work, read_job


def make_app(job: Job, folder: str) -> faust.App:
    """Return the app with its one agent; `folder` is for what Faust stores."""
    app = faust.App(
        job.group,  # the app's id is its consumer group
        broker=f"kafka://{job.bootstrap}",
        key_serializer="raw",
        value_serializer="raw",  # the shared work decodes
        producer_acks=-1,  # all
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
        async for event in stream.events():
            message = event.message
            (prediction,) = work.score(
                [event.value], [message.partition], [message.offset], [round(message.timestamp * 1000)]
            )
            # The partition is given because hashing the key in Python takes longer than to send it on.
            await predictions.send(key=event.key, value=prediction, partition=message.partition)
            counted = work.histogram()
            if counted is not None:
                await histograms.send(value=counted)

    return app


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="faust-") as data:
        # Not WARNING: from there on Faust keeps its spinner, and sets the root logger to DEBUG for it.
        faust.Worker(make_app(read_job(), data), loglevel=logging.INFO).execute_from_commandline()
