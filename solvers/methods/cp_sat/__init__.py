"""Proven optima by constraint programming."""
