"""Settings of all tests."""

from hypothesis import settings

# The first call of a compiled loop takes seconds, and continuous integration machines stall: no deadlines.
settings.register_profile("moe-placement", deadline=None)
settings.load_profile("moe-placement")
