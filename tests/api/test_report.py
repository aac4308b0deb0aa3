"""The report file: whole, self-contained, and true to the figures."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.report.report import report_html, write_report
from placement import Objective
from solvers.plotting.svg import heat_map, line_chart
from solvers.study import Study
from traces import InputError, LoadCounts, Provenance, Trace
from traces.synthetic import Synthetic, generate

PARAMS = Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=512, tokens_per_sequence=32)


class Checker(HTMLParser):
    """Collects the tags of a document, and complains about those that are not closed."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.seen)


def arguments(source: Trace | LoadCounts, **changes: Any) -> tuple[Any, ...]:
    """Return the arguments of a report on a random plan."""
    study = Study.of(source, changes.pop("topology", "2x2"), solver="random", **changes)
    solution = study.solve()
    return study, solution, study.compare({"plan": solution.plan})


@pytest.fixture(scope="module")
def document() -> str:
    """Report of a small trace."""
    return report_html(*arguments(generate(PARAMS)))


def test_the_report_is_well_formed(document: str) -> None:
    """Every tag is closed, in order."""
    checker = Checker(document)
    assert checker.open == []
    assert checker.count("table") == 1


def test_the_report_refers_to_nothing_outside_itself(document: str) -> None:
    """It opens without a network, and runs no script."""
    checker = Checker(document)
    assert not [tag for tag, _ in checker.seen if tag in {"script", "link", "img", "iframe", "object", "image", "use"}]
    assert not [attrs for _, attrs in checker.seen if {"src", "href", "onload"} & set(attrs)]
    assert "url(" not in document
    assert "@import" not in document
    assert "http" not in document


def test_the_report_shows_the_figures_of_both_parts_and_plans() -> None:
    """The table's numbers are those of the evaluation."""
    values = arguments(generate(PARAMS))
    document = report_html(*values)
    before, plan = values[2].rows
    assert (before.name, plan.name) == ("contiguous", "plan")
    for item in (before, plan):
        for found in item.parts.values():
            assert f"<td>{100 * found.evaluation.cross_gpu_fraction:.1f} %</td>" in document
            assert f"<td>{found.evaluation.imbalance_max_over_mean:.3f}</td>" in document


def test_the_report_says_what_the_terminal_says(document: str) -> None:
    """What is assumed of the engine, and the verdict; figures are named in words."""
    assert "No engine was named" in document
    assert re.search(r"<b>(Better than|Worse than|No different from) contiguous on held-out tokens", document)
    assert "cross_gpu_fraction" not in document


def test_the_report_draws_layers_traffic_and_loads(document: str) -> None:
    """Two line charts of two plans; per plan, a map of 4 x 4 GPUs without diagonal and one of 4 layers x 4 GPUs."""
    checker = Checker(document)
    assert checker.count("polyline") == 4
    assert checker.count("rect") == 2 * (4 * 3) + 2 * (4 * 4)


def test_names_can_not_inject_markup() -> None:
    """File names and notes are text, whatever they hold."""
    trace = Trace.of(
        np.tile(np.array([0, 1]), (256, 3, 1)),
        num_experts=4,
        provenance=Provenance(source="<b>x</b>", notes=("<script>alert(1)</script>",)),
    )
    document = report_html(*arguments(trace))
    assert "<script" not in document
    assert "&lt;script&gt;" in document


def test_counts_get_a_report_of_expected_loads() -> None:
    """Without tokens, there are loads but no traffic."""
    load = np.random.default_rng(0).uniform(1, 9, (3, 8))
    source = LoadCounts(load=load, layer_ids=np.arange(3), provenance=Provenance(), digest="sha256:0")
    document = report_html(*arguments(source, objective=Objective(execution="dispatch", dedup="none")))
    checker = Checker(document)
    assert checker.open == []
    assert checker.count("rect") == 2 * 3 * 4
    assert "pairs that change" not in document
    assert "counts alone" in document


def test_many_gpus_are_shown_by_node() -> None:
    """A map of 96 x 96 GPUs would be unreadable; 12 x 12 nodes are not."""
    params = Synthetic(num_layers=2, num_experts=96, top_k=2, num_tokens=256, tokens_per_sequence=32)
    document = report_html(*arguments(generate(params), topology="12x8"))
    assert Checker(document).count("rect") == 2 * (12 * 11) + 2 * (2 * 96)


def test_the_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder that is not there is bad input."""
    values = arguments(generate(PARAMS))
    with pytest.raises(InputError):
        write_report(tmp_path / "none" / "report.html", *values)
    write_report(tmp_path / "report.html", *values)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text().endswith("</html>\n")


def test_a_line_chart_spans_its_axes() -> None:
    """The least and greatest values lie within the plot, on axes with round ticks."""
    chart = line_chart([("a", [0, 1, 2], [0.21, 0.47, 0.33])], x_label="layer", y_label="share")
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)]
    assert min(heights) >= 10
    assert max(heights) <= 202
    assert heights[1] < heights[2] < heights[0]
    ticks = [float(tick) for tick in re.findall(r'text-anchor="end">([\d.]+)</text>', chart)]
    assert ticks == pytest.approx([0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0, 0.0], [1e-9, 2e-9], [-3.0, 5e8]])
def test_a_line_chart_takes_any_finite_values(values: list[float]) -> None:
    """Constant, tiny and huge series have axes too."""
    chart = line_chart([("a", [0, 1], values)], x_label="x", y_label="y")
    assert "nan" not in chart.lower()
    assert chart.count("<circle") == 2


def test_a_heat_map_shares_its_scale_and_leaves_nan_blank() -> None:
    """Half of the highest value has half of the colour."""
    values = np.array([[np.nan, 1.0], [2.0, 0.0]])
    chart = heat_map(values, caption="c", row_label="from", column_label="to", low=0, high=2)
    assert re.findall(r'fill-opacity="([\d.]+)"', chart) == ["0.500", "1.000", "0.000"]
