"""The resource `evaluations`."""
