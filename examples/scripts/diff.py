"""What moves from one plan to the next, and how many bytes that is."""

import placement
import solvers

study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "1x4", engine="vllm")
running = study.baseline
better = study.solve(start=running, limits=solvers.Limits(work=50_000)).plan
print(placement.diff(running, better, expert_bytes=44_040_192))
