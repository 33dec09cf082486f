"""Making a new model: data in the order of time, trainers, search, what a candidate is worth, and its gates."""
