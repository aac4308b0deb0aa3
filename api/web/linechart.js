// Lines over an axis: a thin layer over uPlot that follows the style sheet, light or dark.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { make, onScheme, style } from "./dom.js";
import { short } from "./numbers.js";

const HEIGHT = 250;
const FONT = "12px system-ui, 'DejaVu Sans', sans-serif";
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // steps between ticks
const drawn = new Set();
onScheme(() => {
  for (const plot of drawn) {
    plot.redraw(false);
    paintLegend(plot);
  }
});

/**
 * Draw lines into a figure, in place of what was there.
 *
 * x: {label, values, whole}, `whole` for integers only. series: [{label, values, colour, dash, stepped}], colours by name in the style sheet. include: values
 * that the y axis must show. Returns a function that takes new data, [x, ...ys], of the same series.
 */
export function lineChart(figure, { title, note, x, series, include = [] }) {
  if (figure.plot) {
    drawn.delete(figure.plot);
    figure.observer.disconnect();
    figure.plot.destroy();
  }
  const room = make("div", { role: "img", "aria-label": `${title}. ${note}` });
  figure.replaceChildren(make("figcaption", {}, title, make("small", {}, note)), room);
  const axis = (label) => ({
    label, font: FONT, labelFont: FONT, labelSize: 20, stroke: () => style("--soft"),
    grid: { stroke: () => style("--rule"), width: 1 }, ticks: { stroke: () => style("--rule"), width: 1 },
  });
  const size = () => ({ width: Math.max(260, room.clientWidth), height: HEIGHT });
  const plot = new uPlot({
    ...size(),
    scales: { x: { time: false }, y: { range: (_, low, high) => rangeOf(low, high, include) } },
    axes: [{ ...axis(x.label), incrs: x.whole ? WHOLE : undefined }, { ...axis(), size: 62, values: (_, ticks) => ticks.map(short) }],
    series: [
      { label: x.label, value: (_, value) => short(value) },
      ...series.map(({ label, colour, dash, stepped }) => ({
        label, dash, width: 2, colour, spanGaps: true, stroke: () => style(colour), value: (_, value) => short(value),
        paths: stepped ? uPlot.paths.stepped({ align: 1 }) : undefined, points: { show: !stepped, size: 5 },
      })),
    ],
  }, [x.values, ...series.map((line) => line.values)], room);
  paintLegend(plot);
  figure.plot = plot;
  figure.observer = new ResizeObserver(() => plot.setSize(size()));
  figure.observer.observe(figure);
  drawn.add(plot);
  return (data) => plot.setData(data);
}

/** uPlot paints the legend once; colours change with the scheme. */
function paintLegend(plot) {
  plot.root.querySelectorAll(".u-series").forEach((row, index) => {
    const { colour } = plot.series[index];
    if (colour) row.querySelector(".u-marker").style.background = style(colour);
  });
}

function rangeOf(low, high, include) {
  const values = [low, high, ...include].filter(Number.isFinite);
  if (!values.length) return [0, 1];
  const least = Math.min(...values), most = Math.max(...values);
  const margin = (most - least || Math.abs(most) || 1) * .06;
  return [least < 0 ? least - margin : Math.max(0, least - margin), most + margin];
}
