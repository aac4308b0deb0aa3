"""The commands that a service can run in place of this process (``--server URL``)."""
