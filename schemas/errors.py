"""The one base of Penstock's own errors, and its three kinds.

The kind decides what the runtime does: an `InvalidEvent` becomes a dead letter, a `RetryableError` is
tried again after a pause, a `FatalError` stops the worker with its sentence and an exit code.
"""


class PenstockError(Exception):
    """Something went wrong in Penstock; the message is one sentence for a person."""


class InvalidEvent(PenstockError):
    """A record that cannot be used. It is kept as a dead letter under `reason`.

    `reason` is a short stable word for counting (a metric label); the message says what is wrong.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RetryableError(PenstockError):
    """The outside world did not answer; the same call may work later."""


class FatalError(PenstockError):
    """The worker must not go on. `exit_code` is what the process ends with."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SettingsError(FatalError):
    """A setting is unknown, malformed or contradicts another; exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=2)
