"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const hidden = new Set(); // samplers that a click on the legend took away

function shade(colour) { // a line that is nearly black cannot be seen on a dark ground
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const bright = 0.3 * r + 0.59 * g + 0.11 * b;
  if (!dark.matches || bright > 110) return colour;
  return "#" + [r, g, b].map((v) => Math.round(v + (255 - v) * (bright < 30 ? 0.9 : 0.5)).toString(16).padStart(2, "0")).join("");
}

function layout(plot) {
  const axis = (given) => ({ gridcolor: css("--line"), zeroline: false, linecolor: css("--line"), ...given });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--ink"), size: 12 },
    margin: { l: 62, r: 12, t: 8, b: 44 }, showlegend: false,
    xaxis: axis(plot.xaxis), yaxis: axis(plot.yaxis), hovermode: "closest", ...(plot.layout || {}),
  };
}

function traces(plot) {
  return plot.traces.map((trace) => {
    const made = structuredClone(trace);
    if (hidden.has(made.name)) made.visible = false;
    if (made.line && made.line.color) made.line.color = shade(made.line.color);
    if (made.marker && typeof made.marker.color === "string") made.marker.color = shade(made.marker.color);
    if (made.error_y && made.error_y.color) made.error_y.color = shade(made.error_y.color);
    return made;
  });
}

function draw() {
  for (const plot of data.plots) {
    Plotly.react(plot.id, traces(plot), layout(plot), { displaylogo: false, responsive: true, displayModeBar: false });
  }
}
draw();
dark.addEventListener("change", () => { draw(); legend(); });

function legend() {
  document.getElementById("legend").replaceChildren(...data.legend.map(({ name, colour, dash, peer }) => {
    const entry = document.createElement("button"), line = document.createElement("i");
    line.style.borderTop = `${peer ? 2 : 3}px ${dash === "solid" ? "solid" : dash === "dot" ? "dotted" : "dashed"} ${shade(colour)}`;
    entry.append(line, name);
    entry.setAttribute("aria-pressed", String(!hidden.has(name)));
    entry.addEventListener("click", () => { hidden.delete(name) || hidden.add(name); draw(); legend(); });
    return entry;
  }));
}
legend();

// the table: sort by a column, filter by words and by model
const body = document.querySelector("#rows tbody");
const words = document.getElementById("words"), model = document.getElementById("model"), count = document.getElementById("count");
let order = { column: null, up: true };

function cells(row) {
  return data.columns.map(({ name, word }) => {
    const cell = document.createElement("td");
    const value = row.shown[name];
    cell.textContent = value === null || value === undefined ? "" : value;
    if (word) cell.className = "word";
    return cell;
  });
}

function fits(row) {
  const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  return asked.every((word) => row.text.includes(word)) && (!model.value || row.shown.model === model.value);
}

function fill() {
  let rows = data.rows.filter(fits);
  if (order.column !== null) {
    const value = (row) => row.values[order.column];
    rows = [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (x < y ? -1 : x > y ? 1 : 0) * (order.up ? 1 : -1);
    });
  }
  body.replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    if (row.failed) line.className = "failed";
    line.append(...cells(row));
    line.addEventListener("click", () => toggle(line, row));
    return line;
  }));
  count.textContent = `${rows.length} of ${data.rows.length} rows`;
}

function toggle(line, row) {
  if (line.nextSibling && line.nextSibling.className === "more") return line.nextSibling.remove();
  const more = document.createElement("tr"), cell = document.createElement("td");
  more.className = "more";
  cell.colSpan = data.columns.length;
  cell.textContent = row.more;
  more.append(cell);
  line.after(more);
}

document.querySelectorAll("#rows thead th").forEach((head) => head.addEventListener("click", () => {
  const column = head.dataset.column;
  order = { column, up: order.column === column ? !order.up : true };
  fill();
}));
words.addEventListener("input", fill);
model.addEventListener("input", fill);
const asked = new URLSearchParams(location.hash.slice(1)); // page.html#filter=unipc&sort=nfe
words.value = asked.get("filter") || "";
if (asked.get("sort")) order = { column: asked.get("sort"), up: true };
fill();
