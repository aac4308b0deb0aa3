"""Strict JSON files and checked fields."""
