"""Finding a clip that is wired wrongly, in a run's first steps."""
