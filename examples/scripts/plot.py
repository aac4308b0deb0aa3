"""Charts of a search, of loads and of affinity (extra `plot`)."""

import matplotlib.pyplot as plt

import solvers
from solvers import plotting

study = solvers.Study.of("examples/tiny_moe/tiny_moe.npz", "1x4")
found = study.solve(limits=solvers.Limits(work=50_000))
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4))
found.plot(ax=left)
plotting.plot_loads(study.problem, found.plan, ax=middle)
plotting.plot_affinity(study.problem.profile, layer=0, ax=right)
figure.savefig("search.png")
