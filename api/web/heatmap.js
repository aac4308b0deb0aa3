// A matrix as coloured cells on a canvas: of any size, with its values under the pointer and the arrow keys.

import { make, onScheme, style } from "./dom.js";
import { short } from "./numbers.js";

const LEFT = 44, TOP = 22, RIGHT = 4, BOTTOM = 4;
const MOST = 350; // height of a square map
const LABEL = { width: 40, height: 17 };
const FONT = "11px system-ui, 'DejaVu Sans', sans-serif";
const drawn = new Set();
onScheme(() => { for (const draw of drawn) draw(); });

/**
 * Draw a heat map into a figure, in place of what was there.
 *
 * values: rows of numbers; NaN stays blank. low, high: values of the first and last colour. rowName, columnName,
 * cellText: texts for an index or a cell. blocks: [{row, rows, column, columns}] to outline. square: cells as high as
 * wide. label: text of a cell that is large enough for it.
 */
export function heatmap(figure, chart) {
  clearMap(figure);
  const { values, title, note, rowLabel, columnLabel } = chart;
  const canvas = make("canvas", { class: "map", tabindex: "0", role: "img", "aria-label": `${title}. ${note} Arrow keys read the cells.` });
  const scale = make("canvas", { width: "90", height: "10", "aria-hidden": "true" });
  const output = make("output", { "aria-live": "polite" });
  const legend = make("div", { class: "legend" }, short(chart.low), scale, `${chart.open ? "≥ " : ""}${short(chart.high)}`, output);
  figure.replaceChildren(make("figcaption", {}, title, make("small", {}, note)), canvas, legend);
  const rows = values.length, columns = values[0].length;
  let shown = null;

  const place = () => {
    const width = canvas.clientWidth || 400;
    const inner = width - LEFT - RIGHT;
    const side = chart.square ? Math.min(inner / columns, MOST / rows) : null;
    const height = chart.square ? side * rows : Math.max(90, Math.min(300, rows * 22));
    return { width, height, x: chart.square ? side : inner / columns, y: height / rows };
  };

  const draw = () => {
    const at = place(), ratio = devicePixelRatio || 1, ramp = colours();
    canvas.style.height = `${at.height + TOP + BOTTOM}px`;
    canvas.width = Math.round(at.width * ratio);
    canvas.height = Math.round((at.height + TOP + BOTTOM) * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(pixels(chart, ramp), LEFT, TOP, at.x * columns, at.y * rows);
    pen.strokeStyle = style("--rule");
    pen.strokeRect(LEFT - .5, TOP - .5, at.x * columns + 1, at.y * rows + 1);
    outline(pen, chart, at);
    if (chart.label && at.x >= LABEL.width && at.y >= LABEL.height) labels(pen, chart, at, ramp);
    axes(pen, chart, at, rows, columns);
    if (shown) {
      pen.strokeStyle = style("--bound");
      pen.lineWidth = 2;
      pen.strokeRect(LEFT + shown.column * at.x, TOP + shown.row * at.y, at.x, at.y);
    }
    drawScale(scale, ramp);
  };

  const read = (row, column) => {
    shown = row >= 0 && row < rows && column >= 0 && column < columns ? { row, column } : null;
    output.textContent = shown
      ? `${rowLabel} ${chart.rowName(row)}, ${columnLabel} ${chart.columnName(column)}: ${chart.cellText(row, column)}` : "";
    draw();
  };
  canvas.addEventListener("pointermove", (event) => {
    const at = place();
    const row = Math.floor((event.offsetY - TOP) / at.y), column = Math.floor((event.offsetX - LEFT) / at.x);
    if (row !== shown?.row || column !== shown?.column) read(row, column);
  });
  canvas.addEventListener("pointerleave", () => read(-1, -1));
  canvas.addEventListener("blur", () => read(-1, -1));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const from = shown ?? { row: 0, column: 0 };
    read(Math.max(0, Math.min(rows - 1, from.row + (shown ? move[0] : 0))),
      Math.max(0, Math.min(columns - 1, from.column + (shown ? move[1] : 0))));
  });
  figure.draw = draw;
  figure.observer = new ResizeObserver(draw);
  figure.observer.observe(figure);
  drawn.add(draw);
  draw();
}

/** Empty a figure: a map that is gone is not drawn again. */
export function clearMap(figure) {
  drawn.delete(figure.draw);
  figure.observer?.disconnect();
  figure.replaceChildren();
}

const shareOf = (value, { low, high }) => (high > low ? Math.max(0, Math.min(1, (value - low) / (high - low))) : 0);

function pixels(chart, ramp) {
  const { values } = chart;
  const rows = values.length, columns = values[0].length;
  const image = new ImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const value = values[row][column];
      if (!Number.isFinite(value)) continue;
      image.data.set([...ramp[Math.round(shareOf(value, chart) * 255)], 255], 4 * (row * columns + column));
    }
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** 256 colours between the four of the style sheet. */
function colours() {
  const stops = [0, 1, 2, 3].map((number) => {
    const hex = Number.parseInt(style(`--map-${number}`).slice(1), 16);
    return [hex >> 16, (hex >> 8) & 255, hex & 255];
  });
  return Array.from({ length: 256 }, (_, index) => {
    const position = (index / 255) * 3, from = Math.min(2, Math.floor(position));
    return stops[from].map((value, part) => Math.round(value + (stops[from + 1][part] - value) * (position - from)));
  });
}

function drawScale(canvas, ramp) {
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    pen.fillStyle = `rgb(${ramp[Math.round((x / (canvas.width - 1)) * 255)].join()})`;
    pen.fillRect(x, 0, 1, canvas.height);
  }
}

function labels(pen, chart, at, ramp) {
  pen.font = FONT;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  chart.values.forEach((cells, row) => cells.forEach((value, column) => {
    const [red, green, blue] = Number.isFinite(value) ? ramp[Math.round(shareOf(value, chart) * 255)] : [];
    const light = red === undefined ? null : .299 * red + .587 * green + .114 * blue > 140;
    pen.fillStyle = light === null ? style("--soft") : light ? "#10151b" : "#fff";
    pen.fillText(chart.label(row, column), LEFT + (column + .5) * at.x, TOP + (row + .5) * at.y);
  }));
}

function outline(pen, { blocks = [] }, at) {
  pen.strokeStyle = style("--bound");
  pen.lineWidth = 1.5;
  for (const { row, rows, column, columns } of blocks) {
    pen.strokeRect(LEFT + column * at.x, TOP + row * at.y, columns * at.x, rows * at.y);
  }
}

function axes(pen, { rowName, columnName, rowLabel, columnLabel }, at, rows, columns) {
  pen.fillStyle = style("--soft");
  pen.font = FONT;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  const everyRow = Math.ceil(14 / at.y), everyColumn = Math.ceil(34 / at.x);
  for (let row = 0; row < rows; row += everyRow) pen.fillText(rowName(row), LEFT - 5, TOP + (row + .5) * at.y);
  pen.textAlign = "center";
  for (let column = 0; column < columns; column += everyColumn) {
    pen.fillText(columnName(column), LEFT + (column + .5) * at.x, TOP - 8);
  }
  pen.textAlign = "left";
  pen.fillText(`↓ →`, 2, TOP - 8);
}
