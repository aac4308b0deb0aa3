"""ExFlow's integer programmes."""
