"""Looking at the loss away from the current weights, without the training noticing."""
