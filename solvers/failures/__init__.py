"""Plans for what is left when something has failed, and schedules of failures and joins."""
