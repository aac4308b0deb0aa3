"""The resource `catalogue`."""
