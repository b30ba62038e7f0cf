"use strict";

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d4d4d"];
const HEIGHT = 260;

/* Curves: uPlot wants one column of x for all of them. */

function options(chart, width, log) {
  const joined = chart.curves.length > 10 ? { show: false } : {};
  return {
    width,
    height: HEIGHT,
    legend: joined,
    cursor: { drag: { x: true, y: false }, sync: { key: "step" } },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [{}, { size: 64, values: (u, ticks) => ticks.map((tick) => (tick === null ? "" : label(tick))) }],
    series: [{ label: "step" }, ...chart.curves.map(stroke)],
  };
}

function stroke(curve, index) {
  const dash = curve.dashed ? [6, 4] : index >= COLOURS.length ? [10, 3] : undefined;
  return {
    label: curve.name,
    stroke: curve.dashed ? "#000" : COLOURS[index % COLOURS.length],
    width: 1.5,
    dash,
    spanGaps: true,
    points: { show: curve.x.length < 60 && !curve.dashed, size: 5 },
    value: (u, value) => (value === null ? "–" : label(value)),
  };
}

function label(value) {
  return Number(value.toPrecision(4)).toString();
}

function isLog(chart) {
  const values = chart.curves.flatMap((curve) => curve.y);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return { possible: low > 0, wanted: low > 0 && high > 5 * low };
}

function draw(holder, chart) {
  const place = holder.querySelector(".plot");
  const box = holder.querySelector("input");
  const data = uPlot.join(chart.curves.map((curve) => [curve.x, curve.y]));
  const { possible, wanted } = isLog(chart);
  box.checked = wanted;
  box.disabled = !possible;
  let plot = null;
  const make = () => {
    if (plot) plot.destroy();
    plot = new uPlot(options(chart, place.clientWidth, box.checked), data, place);
  };
  box.addEventListener("change", make);
  make();
  new ResizeObserver(() => {
    const width = place.clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  }).observe(place);
}

/* The slider shows the pictures of one step. */

function slide(album) {
  const slider = album.querySelector("input");
  const shown = album.querySelector("output");
  const frames = [...album.querySelectorAll(".pictures")];
  const show = () => {
    frames.forEach((frame, index) => { frame.hidden = index !== Number(slider.value); });
    shown.textContent = frames[slider.value].dataset.when;
  };
  slider.addEventListener("input", show);
  show();
}

/* A table is sorted by the column whose name is pressed; what has no value comes last. */

function sortable(table) {
  table.querySelectorAll("th button").forEach((button) => {
    button.addEventListener("click", () => sort(table, button.closest("th")));
  });
}

function sort(table, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent.trim();
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((one, other) => compare(value(one), value(other), down));
  body.append(...rows);
}

function compare(one, other, down) {
  if (one === "" || other === "") return (one === "") - (other === "");
  const order = isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other;
  return down ? -order : order;
}

const charts = JSON.parse(document.getElementById("curves").textContent);
document.querySelectorAll(".chart").forEach((holder, index) => draw(holder, charts[index]));
document.querySelectorAll(".album").forEach(slide);
document.querySelectorAll("table.sortable").forEach(sortable);
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
