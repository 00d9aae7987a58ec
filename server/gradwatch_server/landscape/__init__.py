"""What probes of the loss say, worked out: pure functions over rows of numbers, no I/O."""
