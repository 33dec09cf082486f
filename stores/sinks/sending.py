"""What a sender is, and the two ways in which it fails. No message has a secret, or a URL, in it."""

from typing import Protocol

from schemas.errors import PenstockError, RetryableError
from schemas.events import Alert


class Undeliverable(PenstockError):
    """The alert was refused, and would be refused again."""


class LaterError(RetryableError):
    """The alert was not taken now; `after_s` is how long to wait at least, if the receiver said so."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class Sender(Protocol):
    """Delivers alerts to one sink."""

    async def send(self, alert: Alert) -> None:
        """Deliver the alert, in one attempt of at most some tens of seconds.

        Raises LaterError when another attempt may succeed, although this one may have, too; Undeliverable otherwise.
        """
