"""The resource `score`."""
