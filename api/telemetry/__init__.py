"""Logs and figures of a running service."""
