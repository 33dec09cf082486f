"""Penstock beside its peers, and under attack. Results are counted by plain Kafka clients that know nothing of it."""
