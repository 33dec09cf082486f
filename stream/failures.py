"""Which errors of Kafka's clients can pass, and which mean that nothing will get better by itself."""

from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaConnectionError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
)

from schemas.errors import RetryableError


def is_retryable(error: Exception) -> bool:
    """Whether opening the task again can help: the broker was away, moved, or took the partition back."""
    return isinstance(error, _TRANSIENT) or bool(getattr(error, "retriable", False))


# aiokafka marks some of these as final, which they are for the producer at hand but not for a new one.
_TRANSIENT = (
    RetryableError,
    ConnectionError,
    TimeoutError,
    KafkaConnectionError,
    KafkaTimeoutError,
    CommitFailedError,
    IllegalStateError,
    InvalidProducerIdMapping,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
)


def describe(error: BaseException) -> str:
    """Return the error's sentence, or its kind when it has none."""
    return str(error) or type(error).__name__
