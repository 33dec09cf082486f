"""Join: predictions and labels of the same events meet and become samples.

A label is inside when its time is at most the window after its event's. A prediction waits for labels until the clock
has passed its event time, the window and the lateness; a label waits for its prediction until the clock has passed its
own time and the lateness (whatever comes later than that waits for the next sweep). A waiting label is judged
when its prediction comes, as if it had come then: so the order in which the two inputs are read makes no difference
between two sweeps, and reading the logs again from sweep to sweep rebuilds the state exactly. The checkpoint holds
the clock, the sweeps and the offsets from which to read. An event is known by (event_id, entity_id); rebuilding
relies on it that no two events of different times share them within the window and the lateness.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import numpy as np

from agents.joinclock import Clock, Side, SweepLog
from agents.joininput import Hasher, LabelReader, Labels, PredictionReader, Predictions
from agents.joinoutput import JoinOutput
from agents.matching import STEP_ROWS, Matcher
from agents.pending import SMALLEST
from schemas.errors import FatalError
from schemas.events import Checkpoint
from schemas.streams import MINUTE_MS, StreamSpec
from schemas.wire import encode
from stream import metrics as m
from stream.batches import Batch, Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from stream.memory import Memory
from stream.metrics import Metrics
from stream.placement import Placement
from stream.tape import Tape
from topics.specs import StreamTopics
