"""Measurements, side by side; run as modules from the checkout: ``python -m benchmarks.hook``."""
