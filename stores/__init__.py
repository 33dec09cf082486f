"""The outside world: what is kept, or shown, elsewhere than in Kafka."""
