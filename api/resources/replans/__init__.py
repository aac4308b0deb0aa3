"""Re-plans: whether to leave the plan that runs, and how to change it with few moves."""
