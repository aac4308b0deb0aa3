"""The one cost function, its bounds, and where a score comes from."""
