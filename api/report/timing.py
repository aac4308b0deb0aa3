"""An advice in a report: the verdict, the parts of a step, and the time of each layer before and after."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from solvers.advising.advice import percent, sentence
from solvers.plotting.svg import line_chart
from traces.support.atomic import atomic_write

if TYPE_CHECKING:
    from solvers import Advice

__all__ = ["advice_section", "page_of", "write_advice"]


def advice_section(advice: Advice) -> str:
    """Return the verdict, why, a table of the parts of a step and a chart of the layers, as HTML."""
    lines = ["<tr><th></th><th>before</th><th>after</th><th>change</th></tr>"]
    for name, (before, after) in advice.parts().items():
        unit = "per token and layer" if name.startswith("messages") else "ms"
        change = percent(after / before - 1) if before else ""
        cells = "".join(f"<td>{text}</td>" for text in (f"{before:.4g}", f"{after:.4g}", change))
        lines.append(f'<tr><td class="name">{escape(name)}, {unit}</td>{cells}</tr>')
    layers = [float(layer) for layer in advice.plan.layer_ids]
    series = []
    for name, part in (("before", advice.gain.before), ("after", advice.gain.after)):
        series.append((name, layers, (part.dispatch + part.experts + part.combine + part.rest).tolist()))
    chart = line_chart(series, x_label="layer", y_label="Milliseconds of a layer")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in advice.reasons)
    return (
        f'<h2 class="verdict">{escape(sentence(advice))}</h2>'
        f"<p>A {escape(advice.phase)} pass of {escape(advice.model)} on {escape(advice.machine)}.</p>"
        f'<div class="scroll"><table>{"".join(lines)}</table></div>'
        f'<div class="row"><figure>{chart}</figure></div><ul>{reasons}</ul>'
    )


def _alternatives(advice: Advice) -> str:
    if not advice.alternatives:
        return ""
    lines = ["<tr><th></th><th>step, ms</th><th>gain</th><th>experts, GB per GPU</th><th></th></tr>"]
    for each in advice.alternatives:
        cells = (
            "-" if each.step_ms is None else f"{each.step_ms:.4g}",
            "-" if each.gain_fraction is None else percent(each.gain_fraction),
            "-" if each.memory_gb is None else f"{each.memory_gb:.1f}",
        )
        told = "".join(f"<td>{text}</td>" for text in cells)
        name, detail = (f'<td class="name">{escape(text)}</td>' for text in (each.name, each.detail))
        lines.append(f"<tr>{name}{told}{detail}</tr>")
    return f'<h2>What else could be done</h2><div class="scroll"><table>{"".join(lines)}</table></div>'


def page_of(body: str) -> str:
    """Return a whole HTML document that refers to nothing outside itself."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Expert placement</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{style}</style></head><body>\n{body}\n</body></html>\n"
    )


def write_advice(path: str | Path, advices: list[Advice]) -> None:
    """Write advices, one after the other, as one HTML file, whole or not at all."""
    body = "<h1>Is it worth it?</h1>" + "".join(advice_section(each) + _alternatives(each) for each in advices)
    with atomic_write(path) as file:
        file.write(page_of(body).encode())
