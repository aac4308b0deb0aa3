"""The resource `operations`."""
