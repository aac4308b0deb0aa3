"""What commands tell of plans: the right figures first, within 100 columns, and which plan is better by what."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli import app
from api.report.summary import comparison_text, replay_text, summary_text, warnings_text
from placement import Constraints, Objective
from placement.cost.feasibility import load_cap_misses
from solvers.judging.comparing import Comparison
from solvers.judging.replays import PartFigures
from solvers.searching.limits import Limits
from solvers.searching.solution import Solution
from solvers.study import Study
from traces import LoadCounts, Profile, Provenance
from traces.statistics import summary
from traces.synthetic import Synthetic, generate

TRACE = generate(Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=512, tokens_per_sequence=32))
COUNTS = LoadCounts(
    load=np.random.default_rng(0).uniform(1, 9, (3, 16)),
    layer_ids=np.arange(3),
    provenance=Provenance(),
    digest="sha256:0",
)
NONE = Objective(execution="dispatch", dedup="none", activated_weight=1.0)
CASES: dict[str, dict[str, Any]] = {
    "one_gpu": {"topology": "1x1"},
    "one_node": {"topology": "1x4"},
    "nodes": {"topology": "2x2"},
    "nodes_of_one": {"topology": "4x1"},
    "preset": {"topology": "hgx_h100:2", "engine": "sglang", "slots_per_gpu": 3},
    "vllm": {"topology": "1x4", "engine": "vllm", "redundant_experts": 4},
    "messages": {"topology": "2x4", "objective": NONE},
    "fitted_only": {"topology": "2x2", "hold_out": 0},
}


def asked(source: Any = TRACE, solver: str = "load_balance", **request: Any) -> tuple[Study, Solution, Comparison]:
    """Return a study, a plan of a solver that is done at once, and how it compares."""
    study = Study.of(source, request.pop("topology"), solver=solver, limits=Limits(work=20_000), **request)
    solution = study.solve()
    return study, solution, study.compare({"plan": solution.plan})


def changed(comparison: Comparison, parts: tuple[str, ...] = ("fit", "held_out"), /, **factors: float) -> Comparison:
    """Return a comparison whose plan has the baseline's figures times factors, on these parts; else the same."""
    before, plan = comparison.rows
    found = {}
    for part, figures in before.parts.items():
        own = factors if part in parts else {}
        values = {name: getattr(figures.evaluation, name) * factor for name, factor in own.items()}
        found[part] = replace(plan.parts[part], evaluation=replace(figures.evaluation, **values))
    return replace(comparison, rows=(before, replace(plan, parts=found)))


def told(comparison: Comparison, study: Study, solution: Solution) -> str:
    """Return the verdict: the last paragraph of the summary, on one line."""
    return summary_text(study, solution, comparison).split("\n\n")[-1].replace("\n", " ")


@pytest.fixture(scope="module")
def one_node() -> tuple[Study, Solution, Comparison]:
    """Return a plan for four GPUs, and what it belongs to."""
    return asked(topology="1x4")


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_wider_than_100_columns(name: str) -> None:
    """Whatever the machine and the execution; a comparison of plans with long names as well."""
    study, solution, comparison = asked(**CASES[name])
    text = summary_text(study, solution, comparison)
    long = {f"some/folder/that/has/a/long/name/and/more/of/it/{number}.json": solution.plan for number in range(3)}
    texts = [text, comparison_text(study.compare(long)), replay_text("fit", {"a": comparison.rows[1].parts["fit"]})]
    assert max(len(line) for item in texts for line in item.split("\n")) <= 100
    assert len([line for line in text.split("\n") if line.startswith("-----")]) == 1  # one table
    assert not re.search(r"[a-z]_[a-z]+_|imbalance|fraction", text.replace("load_balance", ""))


def test_the_table_has_what_counts_here() -> None:
    """Nodes only where there are several; pairs or messages as tokens travel; activated experts where counted."""

    def rows(name: str) -> list[str]:
        text = summary_text(*asked(**CASES[name]))
        table = text[text.index("-----") :].split("\n\n")[0].split("\n")[1:]
        return [re.split(r"\s{2,}", line.strip())[0] for line in table]

    load = ["busiest GPU's load / mean load", "in passes of 64 tokens", "in passes of 256 tokens"]
    assert rows("one_gpu") == load
    assert rows("one_node") == ["pairs that change GPU", *load]
    assert rows("nodes") == ["pairs that change node", "pairs that change GPU", "hop cost per pair", *load]
    assert rows("nodes_of_one") == ["pairs that change node", *load]
    assert rows("vllm") == ["other GPUs per token and layer", *load, "if replicas shared it ideally"]
    assert rows("messages") == [
        "other nodes per token and layer",
        "other GPUs per token and layer",
        "messages that leave their node",
        "messages that leave their GPU",
        "hop cost per message",
        *load,
        "activated experts, GPU with most",
    ]


def test_the_table_tells_the_evaluations(one_node: tuple[Study, Solution, Comparison]) -> None:
    """Before, after and change of both parts, from the replayed tokens."""
    comparison = one_node[2]
    line = next(item for item in summary_text(*one_node).split("\n") if item.startswith("pairs that change GPU"))
    cells = []
    for part in ("fit", "held_out"):
        before, after = (row.parts[part].evaluation.cross_gpu_fraction for row in comparison.rows)
        cells += [f"{100 * before:.1f} %", f"{100 * after:.1f} %", f"{100 * (after / before - 1):+.1f} %"]
    assert re.split(r"\s{2,}", line)[1:] == cells


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"cross_gpu_fraction": 0.7}, r"Better than contiguous on held-out tokens: 30.0 % fewer pairs change GPU\."),
        ({"cross_gpu_fraction": 1.1}, r"Worse than contiguous on held-out tokens: 10.0 % more pairs change GPU\."),
        ({"cross_gpu_fraction": 1.004}, r"No different from contiguous on held-out tokens: no figure changes by more"),
        (
            {"cross_gpu_fraction": 0.8, "imbalance_max_over_mean": 0.9},
            r"Better than .*: 20.0 % fewer pairs change GPU, busiest GPU 1.218 instead of 1.354 times the mean\.",
        ),
        (
            {"cross_gpu_fraction": 1.2, "imbalance_max_over_mean": 0.9},
            r"Better than .* in one way and worse in another: busiest GPU 1.218 instead of 1.354 times the mean, "
            r"but 20.0 % more pairs change GPU\. The score, which weighs them, is worse \([\d.]+ instead of [\d.]+\)\.",
        ),
    ],
)
def test_the_verdict(one_node: tuple[Study, Solution, Comparison], factors: dict[str, float], words: str) -> None:
    """Better, worse, no different, or both, and by what."""
    study, solution, comparison = one_node
    assert re.match(words, told(changed(comparison, **factors), study, solution))


def test_a_plan_that_suits_the_fitted_tokens_only(one_node: tuple[Study, Solution, Comparison]) -> None:
    """What is gained on tokens that were fitted, and lost on others, is no gain."""
    study, solution, comparison = one_node
    text = told(changed(comparison, ("fit",), cross_gpu_fraction=0.7), study, solution)
    assert text.startswith("No different from contiguous on held-out tokens")
    assert text.endswith(
        "On the fitted tokens it is better: the plan suits them more than the model; fit it to more tokens."
    )


def test_between_nodes_the_cost_decides() -> None:
    """Fewer node changes for more GPU changes are better if the hops cost less."""
    study, solution, comparison = asked(topology="2x2")
    found = changed(comparison, traffic=0.8, cross_node_fraction=0.7, cross_gpu_fraction=1.1)
    expected = "traffic costs 20.0 % less (30.0 % fewer pairs change node, 10.0 % more pairs change GPU)."
    assert told(found, study, solution) == f"Better than contiguous on held-out tokens: {expected}"


def test_from_nothing_to_something_is_worse(one_node: tuple[Study, Solution, Comparison]) -> None:
    """There is no percentage of 0."""
    study, solution, comparison = one_node
    before, plan = comparison.rows
    nothing = changed(comparison, cross_gpu_fraction=0.0).rows[1].parts
    text = told(replace(comparison, rows=(replace(before, parts=nothing), plan)), study, solution)
    assert "pairs that change GPU: 77.3 % instead of 0.0 %" in text


def test_who_names_no_engine_is_told(one_node: tuple[Study, Solution, Comparison]) -> None:
    """In the first line; not where an engine or an execution was named."""
    first = "No engine was named: tokens are taken to go straight from one layer's experts to the next (ExFlow)."
    assert summary_text(*one_node).startswith(first)
    assert "--engine NAME" in summary_text(*one_node)
    for request in ({"engine": "exflow"}, {"objective": Objective(execution="context_coherent")}):
        assert summary_text(*asked(topology="1x4", **request)).startswith("4 layers of 16 experts on 1x4")


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (0.8, "; no plan scores below 0.8000 (gap 20.0 %)."),
        (0.11, "; no plan scores below 0.1100 (gap 89.0 %)."),
        (0.1, "; no useful bound on what the best plan reaches."),
        (0.0, "; no useful bound on what the best plan reaches."),
        (None, "; no useful bound on what the best plan reaches."),
    ],
)
def test_a_gap_is_told_where_it_says_something(
    one_node: tuple[Study, Solution, Comparison], bound: float | None, words: str
) -> None:
    """A bound of a tenth of the score or less says nothing of the plan."""
    study, solution, comparison = one_node
    score = solution.score.total
    plan = replace(solution.plan, score=score, bound=None if bound is None else bound * score)
    found = replace(solution, plan=plan)
    text = summary_text(study, found, comparison)
    line = next(line for line in text.split("\n") if line.startswith("Score "))
    if "scores below" not in words:
        assert line.endswith(words)
        assert "gap" not in text
    else:
        assert line.endswith(words[words.index("(gap") :])


def test_a_comparison_has_baseline_differences_and_winner() -> None:
    """The baseline first; each other plan with its change; the best by its score, and what it wins."""
    study, _, _ = asked(topology="1x4")
    comparison = study.compare(random="random", better="assignment", even="load_balance")
    shuffled = replace(comparison, rows=comparison.rows[::-1])
    text = comparison_text(shuffled)
    table = text.split("\n\n")[0].split("\n")
    assert table[0] == "Fitted tokens (256):"
    names = [line.split()[0] for line in table[4:]]
    assert names == ["contiguous", "even", "better", "random"]
    assert table[4].count("%") == 1  # nothing to differ from
    assert all(line.count("%") == 4 for line in table[5:])  # its pairs; changes of pairs and of two loads
    last = text.split("\n\n")[-1].replace("\n", " ")
    assert comparison.best.name == "better"
    assert last.startswith(f"Lowest score: better, {comparison.best.score:#.4g}; next is ")
    assert "Better than contiguous on held-out tokens" in last
    alone = replace(comparison, rows=tuple(row for row in comparison.rows if row.name in ("contiguous", "random")))
    assert comparison_text(alone).replace("\n", " ").endswith("No plan here beats the baseline.")


def test_a_part_is_named(one_node: tuple[Study, Solution, Comparison]) -> None:
    """Held-out tokens alone are not called all."""
    for part, words in {"all": "All", "held_out": "Held-out", "fit": "Fitted"}.items():
        rows = tuple(replace(row, parts={part: row.parts["fit"]}) for row in one_node[2].rows)
        assert comparison_text(replace(one_node[2], rows=rows)).startswith(f"{words} tokens (256):")


def test_plans_without_baseline_stand_alone(one_node: tuple[Study, Solution, Comparison]) -> None:
    """Constraints that the baseline breaks leave nothing to compare with, and that is said."""
    study, solution, comparison = one_node
    alone = replace(comparison, rows=comparison.rows[1:])
    text = summary_text(study, solution, alone)
    assert "No contiguous plan keeps the constraints" in text
    assert "Better" not in text
    assert "change " not in comparison_text(alone).replace("change GPU", "")


def test_counts_tell_of_loads_only() -> None:
    """Expected loads, and nothing of traffic but why."""
    study, solution, comparison = asked(COUNTS, topology="2x2", objective=Objective(execution="dispatch", dedup="none"))
    for text in (summary_text(study, solution, comparison), comparison_text(comparison)):
        assert "raffic needs a trace with tokens" in text.replace("\n", " ")
        assert "GPUs per token" not in text
        assert "by expected loads: busiest GPU" in text.replace("\n", " ")


def test_warnings_of_one_kind_are_one_sentence() -> None:
    """As they come from a problem whose cap is missed in every layer: their number and the worst."""
    study = Study.of(TRACE, "1x4", constraints=Constraints(load_cap=1.01))
    baseline = study.baseline
    assert baseline is not None
    misses = load_cap_misses(study.problem, baseline.physical_to_logical_map)
    assert len(misses) == 4
    reached = [float(re.findall(r"is (\d\.\d+);", text)[0]) for text in misses]
    (text,) = warnings_text(misses)
    layer = int(study.problem.profile.layer_ids[int(np.argmax(reached))])
    assert text.startswith(f"Load cap 1.01 is missed in 4 layers, worst in layer {layer}: max/mean is {max(reached)}.")
    assert warnings_text(misses[:1]) == misses[:1]


def test_warnings_say_where_no_plan_keeps_the_cap() -> None:
    """Layers where one expert is too hot are counted apart."""
    study = Study.of(TRACE, "1x16", constraints=Constraints(load_cap=1.05))
    assert study.baseline is not None
    misses = load_cap_misses(study.problem, study.baseline.physical_to_logical_map)
    (text,) = warnings_text([*misses, misses[0].split("; ")[0] + "; whether 1.05 can be reached is not known."])
    assert f"In {len(misses)} of them, no plan with these slots keeps it" in text
    assert text.endswith("Whether it can be kept in the others is not known.")


def test_other_warnings_stay() -> None:
    """Different ones are all told; those that differ in numbers only are counted."""
    found = warnings_text(["GPU 1 is full.", "Something else.", "GPU 2 is full.", "GPU 3 is full."])
    assert found == ["GPU 1 is full. (And 2 more like this.)", "Something else."]


def test_replays_of_one_node_have_no_node_figures() -> None:
    """Plans that no score compares: figures side by side, as their tokens travel."""
    parts: dict[str, PartFigures] = {row.name: row.parts["fit"] for row in asked(topology="1x4")[2].rows}
    text = replay_text("fit", parts)
    assert text.startswith("Fitted tokens (256):")
    assert "node" not in text
    assert f"{100 * parts['plan'].evaluation.cross_gpu_fraction:.1f} %" in text


def test_a_profile_ends_with_an_answer(tmp_path: Path) -> None:
    """Whether there is anything to gain; 100 columns hold the table of a large model, too."""
    params = Synthetic(num_layers=3, num_experts=256, top_k=8, num_tokens=600, tokens_per_sequence=32)
    path = tmp_path / "profile.npz"
    profile = Profile.of(generate(params))
    profile.save(path)
    told = CliRunner().invoke(app, ["profile", str(path)])
    assert told.exit_code == 0, told.output
    assert max(map(len, told.stdout.split("\n"))) <= 100
    assert told.stdout.replace("\n", " ").rstrip().endswith(summary(profile)["gain"]["words"])
