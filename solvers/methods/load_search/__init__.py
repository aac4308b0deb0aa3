"""Search for replicas and places by expected loads: what counts per expert allow."""
