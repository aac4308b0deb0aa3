"""Many plans in one call: what traffic costs in balance, replicas or moves."""
