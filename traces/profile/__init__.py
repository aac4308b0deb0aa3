"""A trace's statistics in one pass and constant memory: loads, affinity, a sample of tokens."""
