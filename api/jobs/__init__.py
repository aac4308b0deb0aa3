"""Running plans: lanes, workers, executors."""
