"""Figures as pandas tables (extra `frame`)."""

import solvers

study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "1x4", engine="vllm")
found = study.solve(limits=solvers.Limits(work=50_000))
print(found.plan.to_frame().groupby("gpu").size())
print(study.compare(plan=found.plan).to_frame()[["plan", "part", "fanout_gpus", "imbalance_max_over_mean"]])
