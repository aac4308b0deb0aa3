"""What has to survive failures, kept by searches: the rule that their moves ask, and the repair of other maps."""
