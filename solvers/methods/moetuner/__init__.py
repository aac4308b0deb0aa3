"""MoETuner's two integer programmes."""
