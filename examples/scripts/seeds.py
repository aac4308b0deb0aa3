"""How much does a seed matter? The best of many, and each by itself."""

import solvers

study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "1x4")
limits = solvers.Limits(work=20_000)
scores = [study.solve(seed=seed, limits=limits).score.total for seed in range(5)]
best = study.solve(seeds=5, limits=limits)
print(min(scores), max(scores), best.score.total, best.plan.provenance["seed"])
