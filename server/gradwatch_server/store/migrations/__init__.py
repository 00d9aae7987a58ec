"""Schema changes, applied by the server itself when it starts."""
