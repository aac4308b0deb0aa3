"""What plans and fronts have in common: both are searches that the store queues and a worker runs."""
