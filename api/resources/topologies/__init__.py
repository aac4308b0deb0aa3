"""The resource `topologies`."""
