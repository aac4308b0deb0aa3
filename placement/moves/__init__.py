"""What a change of plan costs: GPUs named so that little moves, bytes over links, and steps that lose no expert."""
