"""Will it hold on other tokens? Fit on a part of the sequences, judge on the rest."""

import placement
import solvers
import traces

fit, held_out = traces.load("examples/tiny_moe/tiny_moe.npz").split(0.3)
study = solvers.Study.of(fit, "1x4", hold_out=0, constraints=placement.Constraints(load_cap=1.05))
plan = study.solve(limits=solvers.Limits(work=50_000)).plan
for name, part in {"fitted": fit, "held out": held_out}.items():
    found = placement.evaluate(plan, part)
    print(
        f"{name}: {found.cross_gpu_fraction:.1%} of pairs change GPU, busiest GPU {found.imbalance_max_over_mean:.3f}"
    )
