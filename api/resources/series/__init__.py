"""The resource `series`: stored traces in the order of time."""
