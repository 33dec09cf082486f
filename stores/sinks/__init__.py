"""Where alerts go: Slack, e-mail and webhooks."""
