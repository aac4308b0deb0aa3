"""Residency: how slots are split over layers, what policies are set to, and which of them is best."""
