"""Traces and counts in time: windows in order, drift between them, and forecasts of the loads to come."""
