"""A webhook: the alert as JSON, signed, with its id as the key that makes a second delivery harmless.

The signature is the header `Penstock-Signature: t=<unix seconds>,v1=<hex>`, where v1 is the HMAC-SHA256 of
`<t>.<body>` under the sink's secret. The time is in it so that a receiver can refuse what was recorded long ago.
"""

import hashlib
import hmac
from collections.abc import Callable

from schemas.events import Alert
from schemas.sinks import WebhookSpec
from schemas.wire import encode
from stores.sinks.headers import header_text
from stores.sinks.posting import TOTAL_S, Poster


class WebhookSender:
    """Posts alerts to a webhook."""

    def __init__(self, spec: WebhookSpec, secret: str, clock_ms: Callable[[], int], total_s: float = TOTAL_S) -> None:
        self._spec = spec
        self._key = secret.encode()
        self._clock_ms = clock_ms
        self._poster = Poster(spec.name, allow_private=spec.allow_private, total_s=total_s)

    async def send(self, alert: Alert) -> None:
        """Post the alert. Raises LaterError and Undeliverable, as `Poster.post` does."""
        body = encode(alert)
        headers = {
            "Idempotency-Key": header_text(alert.id),
            "Penstock-Signature": signature(self._key, body, self._clock_ms() // 1000),
        }
        await self._poster.post(self._spec.url, body, headers)


def signature(key: bytes, body: bytes, time_s: int) -> str:
    """Return the header that proves who sent `body`, and when."""
    mac = hmac.new(key, f"{time_s}.".encode() + body, hashlib.sha256)
    return f"t={time_s},v1={mac.hexdigest()}"
