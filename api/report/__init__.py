"""The report of a plan as one HTML file."""
