"""Penstock and its peers on the same events: `make bench ARGS="peers --json peers.json"`. README.md has the rules."""
