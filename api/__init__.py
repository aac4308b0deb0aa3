"""Step 4 of 4: the command line and the REST service."""

from moe_placement.distribution import require

require("traces", "placement", "solvers")
