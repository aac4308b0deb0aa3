"""The resource `plans`."""
