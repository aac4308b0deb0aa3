"""What does balance cost in traffic? Many plans in one call."""

import solvers

study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "1x4")
front = study.front(points=5, limits=solvers.Limits(work=200_000))
print(front)
front.knee.plan.save("knee.json")
print(front.obeying(1.1).traffic, "hop cost per pair, busiest GPU at most 1.1 times the mean")
