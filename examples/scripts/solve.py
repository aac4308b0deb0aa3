"""Find a plan for an engine, and save it."""

import placement
import solvers

study = solvers.Study.of(
    "examples/tiny_moe/tiny_moe.npz", "1x4", engine="vllm", constraints=placement.Constraints(load_cap=1.05)
)
found = study.solve(limits=solvers.Limits(work=50_000))
found.plan.save("plan.json")
print(found)
