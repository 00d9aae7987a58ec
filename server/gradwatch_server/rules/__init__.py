"""Rules: pure functions over ordered steps. A rule gets its JSON-serialisable state and rows, and gives findings."""
