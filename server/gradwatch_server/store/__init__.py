"""The store: frames in, columns out."""
