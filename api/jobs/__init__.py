"""Running queued plans: lanes, executors, attempts."""
