"""Loads of GPUs: deviations, the least that any plan reaches, the best split over replicas."""
