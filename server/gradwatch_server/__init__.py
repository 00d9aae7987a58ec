"""The server: takes frames in, stores them, shows them live."""
