"""A plan for several domains at once: by their weights, for the worst one, or for a quantile of them."""
