"""From a trace to the file that an engine loads."""

import solvers
import traces

model = traces.ModelLayout.of(8)  # 8 layers, all with experts; or the path of the model's config.json
study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "1x4", engine="sglang")
found = study.solve(limits=solvers.Limits(work=50_000))
found.plan.export("sglang", "location.json", model=model)
