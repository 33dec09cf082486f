"""Which errors of Kafka's clients can pass, and which mean that nothing will get better by itself."""

from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
)

from schemas.errors import RetryableError


def unwrapped(error: Exception) -> Exception:
    """Return what aiokafka's sender met, where it says no more than "unexpected error"."""
    while type(error) is KafkaError and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def is_retryable(error: Exception) -> bool:
    """Whether opening the task again can help: the broker was away, moved, or took the partition back."""
    error = unwrapped(error)
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
