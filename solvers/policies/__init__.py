"""When to re-plan: policies run over a series of windows, in time, with what every re-plan costs."""
