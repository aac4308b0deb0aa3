"""From wanted GPUs to maps of slots that keep every constraint."""
