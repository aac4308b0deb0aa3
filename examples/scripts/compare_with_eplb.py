"""A plan beside EPLB's and the engine's own layout, on tokens that none of them has seen."""

import solvers

study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "2x2", engine="sglang", redundant_experts=8)
found = study.solve(limits=solvers.Limits(work=50_000))
comparison = study.compare(mine=found.plan, eplb=solvers.Eplb())
print(comparison)
print("best on the fitted profile:", comparison.best.name)
