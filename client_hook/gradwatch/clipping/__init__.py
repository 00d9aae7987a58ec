"""Clipping strategies, one a file: what they measure, how they decide, how they apply."""
