"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const groups = data.groups;
  const order = new Map(groups.map((name, i) => [name, i]));
  const hidden = new Set();
  const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
  const redraws = [];
  const tip = document.getElementById("tip");
  const live = document.getElementById("live");
  let singleRuns = false;

  // ---- elements: text goes in as text only, never as markup ----
  const SVG = "http://www.w3.org/2000/svg";
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
    return node;
  }
  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const colour = (name) => `c${order.get(name) % 8}`;
  const dash = (name) => DASHES[order.get(name) % DASHES.length];
  const known = (value) => value !== null && value !== undefined;
  const clear = (node) => node.replaceChildren();

  // ---- numbers ----
  function number(value) {
    if (!known(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-4 || size >= 1e9) return value.toExponential(2).replace("-", "−");
    const digits = Math.min(Math.max(3 - Math.floor(Math.log10(size)), 0), 8);
    let text = Number(value.toPrecision(4)).toFixed(digits);
    if (text.includes(".")) text = text.replace(/\.?0+$/, "");
    const [whole, part] = text.split(".");
    return (whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") + (part ? "." + part : "")).replace("-", "−");
  }
  function short(value) {
    const size = Math.abs(value);
    const cut = (x) => String(Number(x.toPrecision(4))).replace("-", "−");
    if (size >= 1e6) return cut(value / 1e6) + " M";
    if (size >= 1e4) return cut(value / 1e3) + " k";
    return size && size < 1e-3 ? value.toExponential(0).replace("-", "−") : cut(value);
  }
  function between(estimate, low, high) {
    return known(low) && known(high) ? `${number(estimate)} (${number(low)} to ${number(high)})` : number(estimate);
  }
  function ticks(low, high, count) {
    const raw = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const result = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) result.push(Math.abs(v) < step * 1e-9 ? 0 : v);
    return result;
  }
  function extent(values) {
    let low = Infinity, high = -Infinity;
    for (const v of values) if (known(v)) { if (v < low) low = v; if (v > high) high = v; }
    return low <= high ? [low, high] : null;
  }

  // ---- copying ----
  async function copy(text, button) {
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch {
      const area = html("textarea", { class: "visually-hidden" });
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const before = button.dataset.name;
    button.textContent = done ? "Copied" : "Copying failed";
    live.textContent = done ? `${before} copied` : "Copying failed";
    setTimeout(() => { button.textContent = before; }, 1600);
  }
  const isInterval = (cell) => Array.isArray(cell);
  function asCsv(table) {
    const wide = table.columns.map((_, k) => table.rows.some((row) => isInterval(row[k])));
    const quote = (cell) => {
      if (typeof cell === "number") return String(cell);
      let text = known(cell) ? String(cell) : "";
      if (/^[=+@\t\r-]/.test(text)) text = "'" + text; // or a spreadsheet would calculate it
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const spread = (cells, names) => cells.flatMap((cell, k) => {
      if (!wide[k]) return [cell];
      if (names) return [cell, cell + " low", cell + " high"];
      return isInterval(cell) ? cell : [cell, null, null];
    }).map(quote).join(",");
    return [spread(table.columns, true), ...table.rows.map((row) => spread(row, false))].join("\n") + "\n";
  }
  function asMarkdown(table) {
    const cell = (value) => {
      if (isInterval(value)) return between(...value);
      if (typeof value === "number") return number(value);
      return (known(value) ? String(value) : "–").replace(/\s+/g, " ").replace(/[\\|<>`*_[\]]/g, "\\$&");
    };
    const line = (cells) => "| " + cells.map(cell).join(" | ") + " |";
    const rule = table.columns.map((_, k) => (table.rows.some((r) => typeof r[k] === "number" || isInterval(r[k])) ? "---:" : "---"));
    return [line(table.columns), "|" + rule.join("|") + "|", ...table.rows.map(line)].join("\n") + "\n";
  }
  function copyButtons(getTable, title) {
    const make = (name, format) => html("button", {
      type: "button", "data-name": name, "aria-label": `Copy ${title} as ${name}`,
      onclick: (event) => copy(format(getTable()), event.currentTarget),
    }, name);
    return html("div", { class: "copy" }, make("Markdown", asMarkdown), make("CSV", asCsv));
  }
  function alternative(title, getTable) {
    const details = html("details", { class: "chart-alt" }, html("summary", { "aria-label": `Table of ${title}` }, "Table"));
    details.addEventListener("toggle", () => {
      while (details.children.length > 1) details.lastChild.remove();
      if (!details.open) return;
      const table = getTable();
      const show = (cell) => (isInterval(cell) ? between(...cell) : typeof cell === "number" ? number(cell) : known(cell) ? cell : "–");
      details.append(copyButtons(getTable, title), html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
        html("table", {}, html("thead", {}, html("tr", {}, table.columns.map((c) => html("th", { scope: "col" }, c)))),
          html("tbody", {}, table.rows.map((row) => html("tr", {}, row.map((c, k) => (k ? html("td", { class: "number" }, show(c)) : html("th", { scope: "row" }, show(c))))))))));
    });
    return details;
  }

  // ---- read-outs ----
  function showTip(title, lines, x, y) {
    clear(tip);
    tip.append(html("strong", {}, title), ...lines.map(([name, text]) => html("div", { class: order.has(name) ? colour(name) : "" }, order.has(name) ? html("i") : null, html("span", {}, `${name}: ${text}`))));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 16 + box.width > innerWidth ? x - 16 - box.width : x + 16;
    tip.style.left = `${Math.max(6, Math.min(left, innerWidth - box.width - 6))}px`;
    tip.style.top = `${Math.max(6, Math.min(y - box.height / 2, innerHeight - box.height - 6))}px`;
  }
  const hideTip = () => { tip.hidden = true; };
  addEventListener("scroll", hideTip, { passive: true });

  // Makes a chart readable by pointer and by keyboard: `read(k)` gives title and lines of position k, `place(k)` where it is.
  function readable(host, picture, { count, nearest, place, read, mark }) {
    let at = -1;
    const go = (k, client) => {
      at = k;
      mark(k);
      const [title, lines] = read(k);
      const box = picture.getBoundingClientRect();
      const scale = box.width / picture.viewBox.baseVal.width;
      const [px, py] = place(k);
      showTip(title, lines, client ? client.clientX : box.left + px * scale, client ? client.clientY : box.top + py * scale);
      return `${title}. ${lines.map(([name, text]) => `${name}: ${text}`).join("; ")}`;
    };
    const leave = () => { at = -1; mark(-1); hideTip(); };
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const scale = picture.viewBox.baseVal.width / box.width;
      go(nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale), event);
    });
    picture.addEventListener("pointerleave", leave);
    host.onblur = leave;
    host.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
      if (event.key === "Escape") return leave();
      let next;
      if (event.key === "Home") next = 0;
      else if (event.key === "End") next = count - 1;
      else if (step) next = at < 0 ? (step > 0 ? 0 : count - 1) : Math.min(Math.max(at + step, 0), count - 1);
      else return;
      event.preventDefault();
      live.textContent = go(next);
    };
  }

  // ---- charts ----
  function path(x, y, stepped) {
    let d = "", pen = false;
    for (let i = 0; i < x.length; i++) {
      if (!known(y[i])) { pen = false; continue; }
      d += pen ? (stepped ? `H${x[i].toFixed(1)}V${y[i].toFixed(1)}` : `L${x[i].toFixed(1)} ${y[i].toFixed(1)}`) : `M${x[i].toFixed(1)} ${y[i].toFixed(1)}`;
      pen = true;
    }
    return d;
  }
  function bands(x, low, high) {
    const pieces = [];
    let piece = [];
    for (let i = 0; i <= x.length; i++) {
      if (i < x.length && known(low[i]) && known(high[i])) piece.push(i);
      else if (piece.length) { pieces.push(piece); piece = []; }
    }
    return pieces.map((is) => "M" + is.map((i) => `${x[i].toFixed(1)} ${high[i].toFixed(1)}`).join("L") + "L" + is.reverse().map((i) => `${x[i].toFixed(1)} ${low[i].toFixed(1)}`).join("L") + "Z").join("");
  }
  let clips = 0;

  // series: [{name, x, y, low?, high?, runs?: [{name, y, partial}]}], all on the same x or each on its own
  function lineChart(place, spec) {
    const host = html("div", { class: "chart", tabindex: "0", role: "group" });
    place.append(host);
    const visible = () => spec.series().filter((s) => !hidden.has(s.name));
    place.append(alternative(spec.title, () => {
      const shown = visible();
      const xs = [...new Set(shown.flatMap((s) => s.x))].sort((a, b) => a - b);
      const lookup = shown.map((s) => new Map(s.x.map((v, i) => [v, i])));
      return {
        columns: [spec.xLabel, ...shown.map((s) => s.name)],
        rows: xs.map((v) => [v, ...shown.map((s, k) => {
          const i = lookup[k].get(v);
          if (i === undefined || !known(s.y[i])) return null;
          return s.low && known(s.low[i]) ? [s.y[i], s.low[i], s.high[i]] : s.y[i];
        })]),
      };
    }));
    function draw() {
      clear(host);
      const series = visible();
      const last = (s) => { for (let i = s.y.length - 1; i >= 0; i--) if (known(s.y[i])) return `${s.name} ${between(s.y[i], s.low && s.low[i], s.high && s.high[i])}`; return `${s.name} without values`; };
      host.setAttribute("aria-label", `${spec.title}. At the end: ${series.map(last).join("; ")}. Arrow keys read the values.`);
      const width = Math.max(host.clientWidth, 240);
      const height = Math.round(Math.min(Math.max(width * 0.56, 190), 340) * (spec.flat ? 0.86 : 1));
      const withRuns = spec.runs && singleRuns;
      const shownRuns = (s) => (s.runs || []).filter((r) => withRuns || r.partial);
      const core = extent(series.flatMap((s) => [...s.y, ...shownRuns(s).flatMap((r) => r.y)]));
      const xs = extent(series.flatMap((s) => s.x));
      if (!core || !xs) { host.append(html("p", { class: "empty" }, series.length ? "Nothing to draw." : "All groups are hidden.")); return; }
      const span = core[1] - core[0] || Math.abs(core[0]) * 0.1 || 1;
      const wide = extent(series.flatMap((s) => [...(s.low || []), ...(s.high || [])])) || core;
      const reach = spec.range ? Infinity : 0.4 * span; // of intervals that would squeeze all else
      let low = Math.min(core[0], Math.max(wide[0], core[0] - reach)), high = Math.max(core[1], Math.min(wide[1], core[1] + reach));
      if (spec.yRange) [low, high] = spec.yRange;
      else { const margin = (high - low || span) * 0.05; low -= margin; high += margin; }
      const yTicks = ticks(low, high, height / 52);
      const left = Math.max(...yTicks.map((t) => short(t).length)) * 6.6 + 14;
      const right = 12, top = 10, bottom = 38;
      const x0 = spec.fromZero ? Math.min(0, xs[0]) : xs[0], x1 = xs[1] > x0 ? xs[1] : x0 + 1;
      const X = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
      const Y = (v) => (known(v) ? height - bottom - ((v - low) / (high - low)) * (height - top - bottom) : null);
      const clip = `clip${++clips}`;
      const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" },
        svg("clipPath", { id: clip }, svg("rect", { x: left, y: top - 4, width: width - left - right + 6, height: height - top - bottom + 6 })));
      for (const t of yTicks) picture.append(svg("line", { class: "grid-line", x1: left, x2: width - right, y1: Y(t), y2: Y(t) }), svg("text", { x: left - 7, y: Y(t) + 4, "text-anchor": "end" }, short(t)));
      for (const t of ticks(x0, x1, width / 90)) picture.append(svg("text", { x: X(t), y: height - bottom + 17, "text-anchor": X(t) > width - 24 ? "end" : "middle" }, short(t)));
      picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }), svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, spec.xLabel));
      if (known(spec.line && spec.line())) picture.append(svg("line", { class: "reference", x1: left, x2: width - right, y1: Y(spec.line()), y2: Y(spec.line()), "clip-path": `url(#${clip})` }));
      const plot = svg("g", { "clip-path": `url(#${clip})` });
      for (const s of series) {
        const x = s.x.map(X);
        const g = svg("g", { class: colour(s.name) });
        if (s.low && !withRuns) g.append(svg("path", { class: "band", d: bands(x, s.low.map(Y), s.high.map(Y)) }));
        for (const r of shownRuns(s)) g.append(svg("path", { class: r.partial ? "single partial" : "single", d: path(x, r.y.map(Y)) }));
        g.append(svg("path", { class: "mean", d: path(x, s.y.map(Y), spec.stepped), "stroke-dasharray": dash(s.name) }));
        plot.append(g);
      }
      const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
      picture.append(plot, cursor);
      host.append(picture);
      const grid = [...new Set(series.flatMap((s) => s.x))].sort((a, b) => a - b);
      const at = (s, v) => { let best = -1; for (let i = 0; i < s.x.length; i++) if (s.x[i] <= v + 1e-9 || best < 0) best = i; return best; };
      readable(host, picture, {
        count: grid.length,
        nearest: (px) => { const v = x0 + ((px - left) / (width - left - right)) * (x1 - x0); let best = 0; grid.forEach((g, i) => { if (Math.abs(g - v) < Math.abs(grid[best] - v)) best = i; }); return best; },
        place: (k) => [X(grid[k]), top + 20],
        read: (k) => [`${spec.xLabel} ${number(grid[k])}`, series.map((s) => { const i = at(s, grid[k]); return [s.name, between(s.y[i], s.low && s.low[i], s.high && s.high[i])]; })],
        mark: (k) => { cursor.setAttribute("visibility", k < 0 ? "hidden" : "visible"); if (k >= 0) { cursor.setAttribute("x1", X(grid[k])); cursor.setAttribute("x2", X(grid[k])); } },
      });
    }
    watch(host, draw);
  }

  // rows: [{name, label?, estimate, low, high, points?: [{name, value}], extra?}]
  function intervalChart(place, spec) {
    const host = html("div", { class: "chart", tabindex: "0", role: "group" });
    place.append(host);
    const visible = () => spec.rows().filter((r) => !hidden.has(r.name) && !(r.against && hidden.has(r.against)));
    if (spec.table !== false) place.append(alternative(spec.title, () => ({ columns: [spec.rowLabel || "group", spec.xLabel], rows: visible().map((r) => [r.label || r.name, [r.estimate, r.low, r.high]]) })));
    function draw() {
      clear(host);
      const rows = visible();
      host.setAttribute("aria-label", `${spec.title}. ${rows.map((r) => `${r.label || r.name} ${between(r.estimate, r.low, r.high)}`).join("; ")}. Arrow keys read the rows.`);
      const core = extent(rows.flatMap((r) => [r.estimate, ...(r.points || []).map((p) => p.value)]));
      if (!core) { host.append(html("p", { class: "empty" }, rows.length ? "Nothing to draw." : "All groups are hidden.")); return; }
      const width = Math.max(host.clientWidth, 240), step = 40, left = 8, right = 14, bottom = 38;
      const height = rows.length * step + bottom + 4;
      const span = core[1] - core[0] || Math.abs(core[0]) * 0.1 || 1;
      const wide = extent(rows.flatMap((r) => [r.low, r.high])) || core;
      let low = Math.min(core[0], Math.max(wide[0], core[0] - 0.6 * span)), high = Math.max(core[1], Math.min(wide[1], core[1] + 0.6 * span));
      if (spec.xRange) [low, high] = spec.xRange;
      else { low -= 0.04 * (high - low || span); high += 0.04 * (high - low || span); }
      const X = (v) => left + ((Math.min(Math.max(v, low), high) - low) / (high - low)) * (width - left - right);
      const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" });
      for (const t of ticks(low, high, width / 85)) picture.append(svg("line", { class: "grid-line", x1: X(t), x2: X(t), y1: 4, y2: height - bottom }), svg("text", { x: X(t), y: height - bottom + 17, "text-anchor": X(t) > width - 20 ? "end" : X(t) < 20 ? "start" : "middle" }, short(t)));
      if (known(spec.reference)) picture.append(svg("line", { class: "reference", x1: X(spec.reference), x2: X(spec.reference), y1: 4, y2: height - bottom }));
      picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }), svg("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, spec.xLabel));
      const highlight = svg("rect", { x: 0, width, height: step, rx: 6, fill: "var(--soft)", visibility: "hidden" });
      picture.prepend(highlight);
      rows.forEach((r, k) => {
        const y = k * step + 30;
        const g = svg("g", { class: colour(r.name) });
        const room = Math.floor((width - 16) / 6.9), text = r.label || r.name;
        g.append(svg("text", { class: "label", x: left, y: y - 12 }, text.length > room ? text.slice(0, room - 1) + "…" : text));
        for (const p of r.points || []) g.append(svg("circle", { class: "seed", cx: X(p.value), cy: y, r: 3.6 }));
        if (known(r.low) && known(r.high)) g.append(svg("line", { class: "range", x1: X(r.low), x2: X(r.high), y1: y, y2: y }));
        g.append(svg("circle", { class: "estimate", cx: X(r.estimate), cy: y, r: 5.5 }));
        picture.append(g);
      });
      host.append(picture);
      readable(host, picture, {
        count: rows.length,
        nearest: (_, py) => Math.min(Math.max(Math.floor((py - 2) / step), 0), rows.length - 1),
        place: (k) => [X(rows[k].estimate), k * step + 30],
        read: (k) => [rows[k].label || rows[k].name, [[spec.xLabel, between(rows[k].estimate, rows[k].low, rows[k].high)], ...(rows[k].points && rows[k].points.length < 25 ? [["runs", rows[k].points.map((p) => number(p.value)).join(", ")]] : [])]],
        mark: (k) => { highlight.setAttribute("visibility", k < 0 ? "hidden" : "visible"); if (k >= 0) highlight.setAttribute("y", k * step + 3); },
      });
    }
    watch(host, draw);
  }

  function watch(host, draw) {
    redraws.push(draw);
    draw();
    let width = host.clientWidth;
    new ResizeObserver(() => requestAnimationFrame(() => {
      if (host.clientWidth && host.clientWidth !== width) { width = host.clientWidth; draw(); }
    })).observe(host);
  }
  const redraw = () => redraws.forEach((draw) => draw());
  const card = (title, ...more) => html("div", { class: "card" }, html("h3", {}, title), ...more);
  const at = (id) => document.getElementById(id);
  function select(label, options, onchange, chosen = 0) {
    const box = html("select", { onchange: (event) => onchange(Number(event.target.value)) }, options.map((text, i) => html("option", { value: i }, text)));
    box.value = chosen;
    return html("label", {}, label, box);
  }
  const named = (object, build) => groups.filter((name) => object && name in object).map((name) => ({ name, ...build(object[name], name) }));

  // ---- the sections ----
  function legend() {
    const sketch = (name) => svg("svg", { class: `swatch ${colour(name)}`, viewBox: "0 0 26 10", "aria-hidden": "true" }, svg("line", { class: "mean", x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 3, "stroke-dasharray": dash(name) }));
    for (const name of groups) at("legend").append(html("button", {
      type: "button", "aria-pressed": "true", title: name,
      onclick: (event) => {
        if (hidden.has(name)) hidden.delete(name); else hidden.add(name);
        event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(name)));
        redraw();
      },
    }, sketch(name), html("span", {}, name)));
    at("bar").hidden = false;
  }
  function scores() {
    const place = at("score-charts");
    for (const env of data.envs) {
      const of = data.scores[env.name];
      if (!of || !Object.keys(of).length) continue;
      const box = card(env.name);
      place.append(box);
      intervalChart(box, { title: `Scores on ${env.name}`, xLabel: env.score, rows: () => named(of, (s) => ({ estimate: s.mean[0], low: s.mean[1], high: s.mean[2], points: s.runs })) });
    }
  }
  function curves() {
    const place = at("curve-charts");
    const kinds = [["training", "Episodes of the training"], ["evaluations", "Evaluations on the way"]].filter(([key]) => data.envs.some((env) => data.curves[env.name] && data.curves[env.name][key]));
    if (!kinds.length) { place.append(html("p", { class: "empty" }, "No run has recorded episodes or evaluations on its way.")); return; }
    let kind = kinds[0][0];
    const pickers = at("curve-pickers");
    if (kinds.length > 1) pickers.append(select("Show", kinds.map(([, text]) => text), (i) => { kind = kinds[i][0]; redraw(); }));
    pickers.append(html("label", {}, html("input", { type: "checkbox", onchange: (event) => { singleRuns = event.target.checked; redraw(); } }), "single runs instead of intervals"));
    for (const env of data.envs) {
      const of = data.curves[env.name];
      if (!of) continue;
      const box = card(env.name);
      place.append(box);
      lineChart(box, {
        title: `Learning curves on ${env.name}`, xLabel: "steps", fromZero: true, runs: true,
        series: () => named((of[kind] || {}).groups, (s) => ({ x: of[kind].x, y: s.y, low: s.low, high: s.high, runs: s.runs })),
      });
    }
  }
  function reaching() {
    const place = at("reach-charts");
    for (const env of data.envs) {
      const of = data.reach[env.name];
      if (!of || !of.thresholds.length) continue;
      let chosen = Math.max(of.thresholds.findIndex((t) => Object.values(t.groups).some((steps) => steps.some(known))), 0);
      const box = card(env.name);
      if (of.thresholds.length > 1) box.append(html("div", { class: "pickers" }, select("Return", of.thresholds.map((t) => `${number(t.value)} – ${t.label}`), (i) => { chosen = i; redraw(); }, chosen)));
      place.append(box);
      lineChart(box, {
        title: `Share of runs that have reached a return on ${env.name}`, xLabel: "steps", fromZero: true, stepped: true, yRange: [0, 1.02], flat: true,
        series: () => named(of.thresholds[chosen].groups, (steps) => ({ x: [0, ...of.x], y: [0, ...of.x.map((x) => steps.filter((s) => known(s) && s <= x * 1.000001).length / steps.length)] })),
      });
    }
  }
  function across() {
    const place = at("all-charts");
    if (!place) return;
    for (const key of ["IQM", "mean", "median", "optimality gap"]) {
      const box = card(key + (key === "optimality gap" ? " (lower is better)" : ""));
      place.append(box);
      intervalChart(box, { title: `${key} over all environments`, xLabel: "normalised score", rows: () => named(data.all, (s) => ({ estimate: s[key][0], low: s[key][1], high: s[key][2] })) });
    }
  }
  function profiles() {
    const place = at("profile-charts");
    for (const profile of data.profiles) {
      const box = card(profile.title);
      place.append(box);
      lineChart(box, {
        title: `Performance profile, ${profile.title}`, xLabel: profile.normalised ? "normalised score" : "score", yRange: [0, 1.02], flat: true,
        series: () => named(profile.groups, (s) => ({ x: profile.x, y: s.y, low: s.low, high: s.high })),
      });
    }
  }
  function improvement() {
    const place = at("improvement-charts");
    if (!place) return;
    for (const part of data.improvement) {
      const box = card(part.title);
      place.append(box);
      intervalChart(box, {
        title: `Probability of improvement, ${part.title}`, xLabel: "P(first scores higher than second)", rowLabel: "pair", xRange: [0, 1], reference: 0.5,
        rows: () => part.pairs.map((p) => ({ name: p.x, against: p.y, label: `${p.x} over ${p.y}`, estimate: p.p[0], low: p.p[1], high: p.p[2] })),
      });
    }
  }
  function diagnostics() {
    const place = at("diagnostic-charts");
    if (!place) return;
    const envs = data.envs.filter((env) => data.diagnostics[env.name]);
    const draw = (index) => {
      const kept = redraws.length;
      clear(place);
      const of = data.diagnostics[envs[index].name];
      const show = (key, target) => {
        const box = card(of[key].title, html("p", { class: "small note" }, html("code", {}, key)));
        target.append(box);
        lineChart(box, { title: `${of[key].title} on ${envs[index].name}`, xLabel: "steps", fromZero: true, flat: true, range: true, series: () => named(of[key].groups, (s) => ({ x: s.x, y: s.y, low: s.low, high: s.high })) });
      };
      const keys = Object.keys(of);
      keys.filter((key) => of[key].main).forEach((key) => show(key, place));
      const rest = keys.filter((key) => !of[key].main);
      const more = at("more-diagnostics");
      clear(more);
      if (rest.length) {
        const target = html("div", { class: "grid small-charts" });
        const details = html("details", {}, html("summary", {}, `${rest.length} more logged values`), target);
        details.addEventListener("toggle", () => { if (details.open && !target.children.length) rest.forEach((key) => show(key, target)); });
        more.append(details);
      }
      return kept;
    };
    let mine = null;
    const change = (index) => {
      if (mine !== null) redraws.splice(mine);
      mine = draw(index);
    };
    if (envs.length > 1) at("diagnostic-pickers").append(select("Environment", envs.map((env) => env.name), change));
    change(0);
  }
  function comparing() {
    const place = at("comparison");
    if (!place || data.comparisons.length < 2) return;
    const names = [...new Set(data.comparisons.flatMap((c) => [c.a, c.b]))];
    const first = data.comparisons[0];
    const choice = [names.indexOf(first.a), names.indexOf(first.b)];
    const update = () => {
      const [a, b] = choice.map((i) => names[i]);
      const found = data.comparisons.find((c) => (c.a === a && c.b === b) || (c.a === b && c.b === a));
      at("verdict").textContent = a === b ? "Choose two different groups." : found ? found.answer : "These two were not compared.";
      at("details").replaceChildren(...(found && a !== b ? found.details : []).map((text) => html("li", {}, text)));
    };
    const a = select("Is", names, (i) => { choice[0] = i; update(); }, choice[0]);
    const b = select("better than", names, (i) => { choice[1] = i; update(); }, choice[1]);
    at("comparison-pickers").append(a, b);
  }
  function controls() {
    const root = document.documentElement, button = at("theme");
    const names = { auto: "Auto", light: "Light", dark: "Dark" };
    const set = (theme) => {
      if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
      button.querySelector("span").textContent = names[theme];
      button.setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system has them" : names[theme].toLowerCase()}`);
      button.dataset.theme = theme;
    };
    let theme = null;
    try { theme = localStorage.getItem("sb3-pg-report-theme"); } catch { /* not allowed to remember */ }
    set(theme in names ? theme : "auto");
    button.addEventListener("click", () => {
      const all = Object.keys(names), next = all[(all.indexOf(button.dataset.theme) + 1) % all.length];
      set(next);
      try { localStorage.setItem("sb3-pg-report-theme", next); } catch { /* not allowed to remember */ }
    });
    at("print").addEventListener("click", () => print());
    document.querySelector(".actions").hidden = false;
    let closed = [];
    addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details:not([open]):not(.chart-alt)")]; closed.forEach((d) => { d.open = true; }); });
    addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
    for (const head of document.querySelectorAll("[data-table]")) head.append(copyButtons(() => data.tables[head.dataset.table], head.dataset.title));
  }
  controls();
  legend();
  [comparing, scores, curves, reaching, across, profiles, improvement, diagnostics].forEach((section) => section());
  document.documentElement.dataset.ready = "yes";
})();
