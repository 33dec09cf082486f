"""Compare: what is known of a stream's experiment, and what a rollout does next."""
