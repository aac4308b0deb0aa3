"""Checkpoints whose experts are renumbered, for engines where a rank owns consecutive experts."""
