#!/usr/bin/env bash
# highspy 1.15.1 and OR-Tools 9.15 can't be imported into one process, in either order; highspy 1.16.0 can.
#
# Surprising:  Each works alone. Whichever comes second fails with an undefined symbol (ImportError), since both bring a
#              HiGHS library and the one that is loaded first answers for both. No requirement of either says so.
# Versions:    ortools==9.15.6755, highspy==1.15.1 and highspy==1.16.0, numpy==2.4.6
# Why:         Placement solvers use CP-SAT and HiGHS side by side (HiGHS through PuLP or on its own). A fresh
#              environment may resolve to a pair that fails only when both are used.
# Seen:        2026-11-29
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
cat > finding.py <<'PYTHON'
import subprocess
import sys

CP_SAT, HIGHS = "from ortools.sat.python import cp_model", "import highspy"
# Two experts of load 3 and 5 on two ranks: the larger load is least at 5.
SOLVE = """
model = cp_model.CpModel()
x, top = [model.new_bool_var("") for _ in range(2)], model.new_int_var(0, 9, "")
model.add(3 * x[0] + 5 * x[1] <= top)
model.add(8 - 3 * x[0] - 5 * x[1] <= top)
model.minimize(top)
solver = cp_model.CpSolver()
assert solver.solve(model) == cp_model.OPTIMAL and solver.objective_value == 5
highs = highspy.Highs()
highs.silent()
x, top = [highs.addBinary() for _ in range(2)], highs.addVariable(0, 9)
highs.addConstr(3 * x[0] + 5 * x[1] <= top)
highs.addConstr(8 - 3 * x[0] - 5 * x[1] <= top)
highs.minimize(top)
assert highs.getObjectiveValue() == 5
"""


def run(*lines):
    """Return the last line of what Python says of a program; empty if it ran through."""
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    said = done.stderr.strip().splitlines()
    return said[-1].split("/")[0] + said[-1].rsplit(".so", 1)[-1][:60] if done.returncode else ""


version = sys.argv[1]
alone = run(CP_SAT), run(HIGHS)
both = run(CP_SAT, HIGHS, SOLVE), run(HIGHS, CP_SAT, SOLVE)
print(f"highspy {version}: first OR-Tools: {both[0] or 'works'}; first highspy: {both[1] or 'works'}")
assert alone == ("", ""), "the behaviour has changed"
if version == "1.15.1":
    assert all("ImportError" in said and "undefined symbol" in said for said in both), "the behaviour has changed"
else:
    assert both == ("", ""), "the behaviour has changed"
PYTHON
for version in 1.15.1 1.16.0; do
    env/bin/pip install -q --no-compile numpy==2.4.6 ortools==9.15.6755 "highspy==$version"
    env/bin/python finding.py "$version"
done
