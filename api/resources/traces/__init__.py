"""The resource `traces`."""
