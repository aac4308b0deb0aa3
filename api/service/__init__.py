"""The service as a process: start and stop, application, server, periodic deletion."""
