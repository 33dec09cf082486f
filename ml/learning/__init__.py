"""Learning from samples as they come: `strategies` says when, `comparison` how well, `online` puts them around a model."""
