"""Item features, normalised by what the training items show."""
