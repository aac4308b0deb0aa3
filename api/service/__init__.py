"""The service as a process: settings, application, telemetry, upkeep."""
