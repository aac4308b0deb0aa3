"""The resource `affinity`."""
