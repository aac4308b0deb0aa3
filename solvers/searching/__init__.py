"""The channel between a method and the world: limits, search, solution, threads, CP-SAT."""
