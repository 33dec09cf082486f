"""Where alerts go: Slack, e-mail and webhooks, each behind one method, `send`.

A sender makes one attempt. It knows nothing of other attempts, rates or queues: that is `agents.notify`'s.
"""

from stores.sinks.mail import MailSender
from stores.sinks.sending import LaterError, Sender, Undeliverable
from stores.sinks.slack import SlackSender
from stores.sinks.webhook import WebhookSender

__all__ = ["LaterError", "MailSender", "Sender", "SlackSender", "Undeliverable", "WebhookSender"]
