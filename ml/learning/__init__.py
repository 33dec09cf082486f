"""Learning from samples as they come: `strategies` says when, `comparison` how well, `online` does it."""
