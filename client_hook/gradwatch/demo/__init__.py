"""``gradwatch demo``: a real training, twice, with and without clipping, and a dashboard to watch it."""
