"""Fitting the time model to tables of measurements, and judging it by them."""
