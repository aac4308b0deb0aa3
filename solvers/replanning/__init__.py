"""Re-planning: whether to leave the plan that runs, how to change it with few moves, and in which steps."""
