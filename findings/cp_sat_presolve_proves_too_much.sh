#!/usr/bin/env bash
# CP-SAT 9.15 says OPTIMAL of a solution that is not: its presolve cuts off the optimum of a model with large costs.
#
# Surprising:  The same model has two optima, with the presolve (the default) and without. The better one is a solution,
#              as plain arithmetic shows. All coefficients and sums are within 50 bits, far from the 63 that the library
#              checks for ("model_invalid"); a tenth of all numbers, and both ways agree.
# Versions:    ortools==9.15.6755, numpy==2.4.6
# Why:         Costs of placements are fractions, which CP-SAT needs as whole numbers: whoever scales them up for the
#              sake of a certified gap is told of a bound that a plan beats. Either presolve_inclusion_work_limit or
#              cp_model_probing_level at 0 helps here, but neither in all such models; cp_model_presolve off does.
#              See https://github.com/google/or-tools/issues/5293 for one cause.
# Seen:        2026-11-30
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
cat > finding.py <<'PYTHON'
from ortools.sat.python import cp_model

INF = 1 << 62
TOP = {27: (329853488332, 442151121657206), 31: (0, 884302243314412)} | {v: (0, 442151121657206) for v in (28, 29, 30)}
ROWS = [  # least <= sum of coefficient times variable <= most: rooms, pairs that share a rank, loads of ranks
    ({3: 1, 5: 1, 6: 2, 7: 1, 8: 2}, -INF, 2),
    ({9: -2, 10: 1, 11: 1, 17: 1, 18: 1}, -INF, 0),
    ({5: -2, 12: 1, 13: 1, 19: 1, 20: 1, 24: 1}, -INF, 0),
    ({14: -2, 15: 1, 16: 1, 21: 1, 22: 1, 26: 1}, -INF, 0),
    ({23: -2, 24: 1, 25: 1, 26: 1}, -INF, 0),
    ({0: -329853488332, 1: -329853488332, 2: -109951162777, 4: -109951162777, 5: -54975581388, 27: 1}, 0, INF),
    ({3: -109951162777, 5: -54975581388, 6: -109951162777, 7: -219902325555, 8: -219902325555, 27: 1}, 0, INF),
    (
        {3: -36650387592533, 5: -18325193796266, 6: -36650387592533, 7: -73300775185066, 8: -73300775185066, 28: 1},
        -131941395333120,
        INF,
    ),
    ({29: -1, 30: -1, 31: 1}, -17592186045, INF),
    (
        {0: -100371220128, 1: -100371220128, 2: -50185610064, 3: 50185610065, 4: -50185610064, 6: 50185610065}
        | {7: -150556830193, 8: -150556830193, 30: 1},
        0,
        INF,
    ),
    ({0: 1, 1: 1, 9: -1}, 0, 0),  # one of them, as one has to be chosen where 9 is
    ({7: 1, 8: 1, 14: -1}, 0, 0),
    ({24: 1, 5: -1}, -INF, 0),
]
COST = {
    10: -439804651111, 11: -879609302221, 12: -27487790695, 13: -54975581389, 15: -73300775186, 16: -146601550371,
    17: -18325193797, 18: -36650387593, 19: -18325193797, 20: -36650387593, 21: -36650387593, 22: -73300775186,
    24: -91625968982, 25: -183251937963, 26: -513105426296, 27: 1, 28: 1, 31: 1,
}  # fmt: skip


def optimum(presolve, divisor):
    """Return the status, the optimum, and whether its solution keeps all rows and costs that."""
    def less(number):
        return number if abs(number) < 100 or abs(number) == INF else number // divisor

    model = cp_model.CpModel()
    bounds = {v: tuple(map(less, TOP[v])) if v in TOP else (0, 1) for v in range(32)}
    x = [model.new_int_var(*bounds[v], "") for v in range(32)]
    rows = [({v: less(c) for v, c in row.items()}, less(least), less(most)) for row, least, most in ROWS]
    for row, least, most in rows:
        model.add_linear_constraint(sum(c * x[v] for v, c in row.items()), least, most)
    cost = {v: less(c) for v, c in COST.items()}
    model.minimize(sum(c * x[v] for v, c in cost.items()))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.cp_model_presolve = presolve
    status = solver.status_name(solver.solve(model))
    value = [solver.value(one) for one in x]
    kept = all(least <= sum(c * value[v] for v, c in row.items()) <= most for row, least, most in rows)
    kept &= all(least <= one <= most for one, (least, most) in zip(value, bounds.values()))
    return status, int(solver.objective_value), kept and sum(c * value[v] for v, c in cost.items())


for divisor in (1, 10):
    found = {presolve: optimum(presolve, divisor) for presolve in (True, False)}
    print(f"numbers / {divisor}: with presolve {found[True]}, without {found[False]}")
    assert all(status == "OPTIMAL" and value == own for status, value, own in found.values()), "something has changed"
    assert (found[True][1] > found[False][1]) == (divisor == 1), "the behaviour has changed"
PYTHON
env/bin/pip install -q --no-compile numpy==2.4.6 ortools==9.15.6755
env/bin/python finding.py
