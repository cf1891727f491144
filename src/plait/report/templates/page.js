(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const narrow = window.matchMedia("(max-width: 760px)");
  const inline = window.matchMedia("(max-width: 1000px)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  // ---- Labels: Plotly takes text for a kind of HTML, so labels are escaped.
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const plain = (text) => text.replace(/[&<>]/g, (c) => escapes[c]);
  const raw = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  function shorten(text, longest) {
    const letters = Array.from(text);
    if (letters.length <= longest) return text;
    const head = Math.floor(((longest - 1) * 2) / 3);
    return letters.slice(0, head).join("") + "…" + letters.slice(letters.length - (longest - 1 - head)).join("");
  }

  // ---- Figures
  function colourOf(styles, value) {
    return value.replace(/var\((--[a-z0-9-]+)\)/g, (_, name) => styles.getPropertyValue(name).trim());
  }
  function resolved(styles, value) {
    if (typeof value === "string") return value.startsWith("var(--") ? colourOf(styles, value) : value;
    if (Array.isArray(value)) return value.map((part) => resolved(styles, part));
    if (value && typeof value === "object") {
      const copy = {};
      for (const key of Object.keys(value)) copy[key] = resolved(styles, value[key]);
      return copy;
    }
    return value;
  }
  function house(styles) {
    const get = (name) => styles.getPropertyValue(name).trim();
    const axis = {
      gridcolor: get("--line"), zerolinecolor: get("--grey"), zerolinewidth: 1, linecolor: get("--line"),
      tickcolor: get("--line"), ticks: "", automargin: true, fixedrange: narrow.matches,
      title: { font: { size: 12.5, color: get("--muted") }, standoff: 8 },
    };
    return { layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: get("--sans"), size: 12, color: get("--ink") },
      hoverlabel: { bgcolor: get("--surface"), bordercolor: get("--grey"), font: { color: get("--ink"), size: 12.5 }, align: "left" },
      xaxis: axis, yaxis: axis, showlegend: false, dragmode: narrow.matches ? false : "zoom",
      legend: { font: { size: 12 } },
      // Its ground would be half of the paper's, and half of transparent black is grey.
      modebar: { bgcolor: "rgba(0,0,0,0)", color: get("--grey"), activecolor: get("--ink") },
    } };
  }
  const config = {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d", "zoom2d"],
  };
  // Names on an axis of places with a range: none where it would touch the one before.
  function spaced(axis, width) {
    const [low, high] = axis.range;
    let end = -Infinity;
    return axis.ticktext.map((text, i) => {
      const at = ((axis.tickvals[i] - low) / (high - low)) * width, half = 3.9 * raw(text).length + 3;
      if (at - half < end) return "";
      end = at + half;
      return text;
    });
  }
  function draw(place, spec, name) {
    const styles = getComputedStyle(root);
    const figure = resolved(styles, spec);
    const layout = figure.layout;
    layout.template = house(styles);
    for (const trace of figure.data) {
      const names = trace.meta;
      if (trace.type === "heatmap" && names) trace.customdata = names.map((a) => names.map((b) => [a, b]));
    }
    layout.margin = Object.assign({ l: 6, r: 14, t: 8, b: 44 }, layout.margin);
    const above = 28; // Room for the buttons, which would lie over the figure.
    if (layout.height) layout.height += above - layout.margin.t;
    layout.margin.t = above;
    layout.autosize = true;
    if (root.dataset.printing) layout.width = place.clientWidth;
    if (narrow.matches) {
      for (const key of Object.keys(layout)) {
        const axis = layout[key];
        if (key.includes("axis") && Array.isArray(axis.ticktext)) {
          axis.ticktext = axis.ticktext.map((text) => text.split("<br>").map((line) => plain(shorten(raw(line), 14))).join("<br>"));
        }
      }
    }
    if (layout.xaxis.range && layout.xaxis.ticktext) layout.xaxis.ticktext = spaced(layout.xaxis, place.clientWidth - 40);
    if (narrow.matches && layout.annotations) layout.annotations = layout.annotations.slice(0, 1);
    const options = Object.assign({ toImageButtonOptions: { format: "svg", filename: name } }, config);
    return Plotly.react(place, figure.data, layout, options).then(() => within(place));
  }
  // Names of points lie within the axes, not over their numbers, and over no name before.
  function within(place) {
    const area = place.querySelector(".nsewdrag"), notes = place.querySelectorAll(".annotation");
    if (!area || !notes.length) return place;
    const { left, right } = area.getBoundingClientRect();
    const changes = {}, taken = [];
    notes.forEach((note) => {
      const box = note.getBoundingClientRect(), name = `annotations[${note.dataset.index}]`;
      const by = Math.max(left, Math.min(box.left, right - box.width)) - box.left;
      const over = (other) => box.left + by < other.right && other.left < box.right + by &&
        box.top < other.bottom && other.top < box.bottom;
      if (taken.some(over)) { changes[`${name}.visible`] = false; return; }
      taken.push({ left: box.left + by, right: box.right + by, top: box.top, bottom: box.bottom });
      if (by) changes[`${name}.xshift`] = by;
    });
    return Object.keys(changes).length ? Plotly.relayout(place, changes) : place;
  }
  const places = Array.from(document.querySelectorAll("[data-figure]"));
  const pending = new Set(places);
  function drawFigure(place) {
    pending.delete(place);
    const name = place.dataset.figure;
    draw(place, data.figures[name][Number(place.dataset.view || 0)], name);
  }
  function drawNext() {
    const next = pending.values().next();
    if (next.done) { root.dataset.drawn = "all"; return; }
    drawFigure(next.value);
    window.setTimeout(drawNext, 0);
  }
  function drawAll() {
    for (const place of places) drawFigure(place);
    if (chosen >= 0) drawForest();
  }

  for (const list of document.querySelectorAll("[data-views]")) {
    const place = places.find((one) => one.dataset.figure === list.dataset.views);
    list.addEventListener("change", () => { place.dataset.view = list.value; drawFigure(place); });
  }

  // ---- The table: what is shown is an array of row numbers, 50 of them at a time.
  const table = data.table;
  const size = 50;
  let order = [], page = 0, chosen = -1, key = "rate", rising = true;
  const width = table ? table.contexts.length : 0;
  const best = [], counts = [], searched = [];
  const at = (values, i, r) => values[i * width + r];
  const rateOf = (i, r) => { const v = at(table.rate, i, r); return v === null ? Infinity : v; };
  const significant = (i, r) => rateOf(i, r) < table.level;

  function prepare() {
    for (let i = 0; i < table.effects.length; i++) {
      let place = 0, count = 0;
      for (let r = 0; r < width; r++) {
        if (rateOf(i, r) < rateOf(i, place)) place = r;
        if (significant(i, r)) count++;
      }
      best.push(place); counts.push(count); searched.push(table.effects[i].toLowerCase());
    }
  }
  const value = {
    effect: (i) => table.effects[i],
    context: (i) => table.contexts[best[i]],
    estimate: (i) => at(table.estimate, i, best[i]),
    error: (i) => (table.error ? at(table.error, i, best[i]) : null),
    rate: (i) => rateOf(i, best[i]),
    count: (i) => counts[i],
  };
  const collator = new Intl.Collator(undefined, { numeric: true });
  function compare(a, b) {
    const x = value[key](a), y = value[key](b);
    const way = rising ? 1 : -1;
    if (typeof x === "string") return way * collator.compare(x, y) || a - b;
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return x === y ? a - b : way * (x < y ? -1 : 1);
  }
  function select() {
    const words = byId("search").value.trim().toLowerCase();
    const where = byId("where").value;
    order = [];
    for (let i = 0; i < table.effects.length; i++) {
      if (words && !searched[i].includes(words)) continue;
      if (where !== "" && !significant(i, Number(where))) continue;
      order.push(i);
    }
    order.sort(compare);
    page = 0;
    show();
  }
  function figures(v, digits) {
    if (v === null || !Number.isFinite(v)) return "–";
    if (v === 0) return "0";
    const size = Math.abs(v);
    return (size < 1e-3 || size >= 1e5 ? v.toExponential(1) : v.toPrecision(digits)).replace("-", "−");
  }
  function cell(row, text, kind) {
    const td = row.insertCell();
    td.textContent = text;
    if (kind) td.className = kind;
    return td;
  }
  function strip(i) {
    const each = Math.min(10, 72 / width);
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("width", String(each * width));
    svg.setAttribute("height", "14");
    svg.setAttribute("role", "img");
    const up = [], down = [];
    for (let r = 0; r < width; r++) {
      const v = at(table.estimate, i, r), sure = significant(i, r);
      if (sure) (v < 0 ? down : up).push(table.contexts[r]);
      const box = document.createElementNS(ns, "rect");
      box.setAttribute("x", String(r * each));
      box.setAttribute("width", String(each - (each > 4 ? 1 : 0)));
      box.setAttribute("height", "14");
      box.style.fill = v === null ? "var(--line)" : v < 0 ? "var(--vermilion)" : "var(--blue)";
      box.style.opacity = sure ? "1" : "0.16";
      svg.append(box);
    }
    const say = (names, sign) => (names.length ? `${sign} in ${names.length > 12 ? names.length + ` ${table.names.context}s` : names.join(", ")}` : "");
    const label = [say(up, "raised"), say(down, "lowered")].filter(Boolean).join("; ") || "significant nowhere";
    svg.setAttribute("aria-label", label);
    return svg;
  }
  function show() {
    const body = byId("rows").tBodies[0];
    const panel = byId("one");
    if (body.contains(panel)) document.querySelector(".effects").append(panel);
    body.replaceChildren();
    const pages = Math.max(1, Math.ceil(order.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    for (const i of order.slice(page * size, (page + 1) * size)) {
      const row = body.insertRow();
      row.className = "effect";
      row.dataset.row = i;
      const pick = document.createElement("button");
      pick.type = "button";
      pick.className = "pick";
      pick.textContent = table.effects[i];
      pick.title = table.effects[i];
      pick.setAttribute("aria-expanded", "false");
      cell(row, "", "every").append(pick);
      cell(row, value.context(i), "context").title = value.context(i);
      cell(row, figures(value.estimate(i), 3), "number");
      if (table.error) cell(row, figures(value.error(i), 2), "number error");
      cell(row, figures(value.rate(i), 2), "number");
      cell(row, String(counts[i]), "number significant");
      cell(row, "", "every strip").append(strip(i));
    }
    const all = table.effects.length;
    byId("count").textContent = order.length === all
      ? `${all.toLocaleString("en")} ${table.names.effect}${all === 1 ? "" : "s"}`
      : `${order.length.toLocaleString("en")} of ${all.toLocaleString("en")} ${table.names.effect}s match`;
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("before").disabled = page === 0;
    byId("after").disabled = page >= pages - 1;
    document.querySelector(".pages").hidden = pages === 1;
    for (const head of document.querySelectorAll("#rows th[data-key]")) {
      if (head.dataset.key === key) head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    if (chosen >= 0) mark();
  }

  // ---- One effect: beside the table where there is room, else below its row.
  function mark() {
    for (const row of document.querySelectorAll("#rows tr.effect")) {
      const is = Number(row.dataset.row) === chosen;
      row.classList.toggle("chosen", is);
      row.querySelector(".pick").setAttribute("aria-expanded", String(is));
    }
    const panel = byId("one");
    const old = document.querySelector("#rows tr.inline");
    const row = document.querySelector("#rows tr.chosen");
    if (inline.matches && row) {
      if (!old || old.previousElementSibling !== row || !old.contains(panel)) {
        const holder = document.createElement("tr");
        holder.className = "inline";
        const td = holder.insertCell();
        td.colSpan = 7;
        td.append(panel);
        row.after(holder);
      }
      panel.style.width = Math.min(document.querySelector(".rows").clientWidth, 560) + "px";
      panel.style.position = "sticky";
      panel.style.left = "0";
    } else {
      document.querySelector(".effects").append(panel);
      panel.removeAttribute("style");
    }
    if (old && !old.contains(panel)) old.remove();
    panel.hidden = inline.matches && !row;
  }
  function choose(i) {
    if (inline.matches && chosen === i) {
      chosen = -1;
      const panel = byId("one");
      document.querySelector(".effects").append(panel);
      panel.hidden = true;
      show();
      return;
    }
    chosen = i;
    mark();
    drawForest();
  }
  function drawForest() {
    const panel = byId("one");
    if (panel.hidden) return;
    byId("one-name").textContent = table.effects[chosen];
    const sets = [
      { name: "raised", color: "var(--blue)", test: (r) => significant(chosen, r) && at(table.estimate, chosen, r) >= 0, symbol: "circle" },
      { name: "lowered", color: "var(--vermilion)", test: (r) => significant(chosen, r) && at(table.estimate, chosen, r) < 0, symbol: "circle" },
      { name: "not significant", color: "var(--grey)", test: (r) => !significant(chosen, r), symbol: "circle-open" },
    ];
    const traces = sets.map((set) => {
      const rows = [];
      for (let r = 0; r < width; r++) if (set.test(r) && at(table.estimate, chosen, r) !== null) rows.push(r);
      return {
        type: "scatter", mode: "markers", name: set.name, y: rows,
        x: rows.map((r) => at(table.estimate, chosen, r)),
        ...(table.error && { error_x: {
          type: "data", array: rows.map((r) => 1.96 * (at(table.error, chosen, r) || 0)), thickness: 1.6,
          width: 0, color: set.color,
        } }),
        customdata: rows.map((r) => [
          plain(table.contexts[r]), table.error ? ` ± ${figures(at(table.error, chosen, r), 2)}` : "", figures(rateOf(chosen, r), 2),
        ]),
        marker: { color: set.color, size: 9, symbol: set.symbol, line: { width: 2, color: set.color } },
        hovertemplate: "%{customdata[0]}: %{x:.3g}%{customdata[1]}<br>" + table.names.rate + " %{customdata[2]}<extra></extra>",
      };
    });
    const each = width <= 12 ? 30 : width <= 24 ? 22 : 14;
    const spec = { data: traces, layout: {
      height: Math.max(150, 64 + each * width), margin: { t: 6, b: 46 }, hovermode: "closest",
      xaxis: { title: { text: table.names.estimate }, zeroline: true, rangemode: "tozero" },
      yaxis: {
        tickmode: "array", tickvals: table.contexts.map((_, r) => r),
        ticktext: table.contexts.map((name) => plain(shorten(name, 22))),
        tickfont: { size: width <= 24 ? 12 : 9.5 }, range: [width - 0.4, -0.6], showgrid: false, zeroline: false, ticklabelstandoff: 4,
      },
    } };
    const forest = byId("forest");
    const sure = counts[chosen];
    forest.setAttribute("aria-label", `Forest plot of ${table.effects[chosen]}: significant in ${sure} of ${width} ${table.names.context}s`);
    draw(forest, spec, "forest").then(() => { forest.dataset.effect = table.effects[chosen]; });
  }

  // ---- The table as a file
  function quoted(text) {
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }
  function csv() {
    const names = table.names;
    const slug = (text) => text.replace(/ /g, "_");
    const known = ["estimate", "error", "rate"].filter((what) => table[what]);
    const head = ["effect", "surest_in", ...known.map((what) => slug(names[what])), "n_significant"];
    for (const name of known.map((what) => names[what])) {
      for (const context of table.contexts) head.push(`${slug(name)}.${context}`);
    }
    const text = (v) => (v === null || v === Infinity ? "NA" : String(v));
    const lines = [head.map(quoted).join(",")];
    for (const i of order) {
      const row = [quoted(table.effects[i]), quoted(value.context(i)), ...known.map((what) => text(value[what](i))), counts[i]];
      for (const values of known.map((what) => table[what])) {
        for (let r = 0; r < width; r++) row.push(text(at(values, i, r)));
      }
      lines.push(row.join(","));
    }
    return lines.join("\n") + "\n";
  }
  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = table.file;
    document.body.append(link);
    link.click();
    link.remove();
    window.setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function startTable() {
    prepare();
    byId("search").addEventListener("input", select);
    byId("where").addEventListener("change", select);
    byId("download").addEventListener("click", download);
    byId("before").addEventListener("click", () => { page -= 1; show(); });
    byId("after").addEventListener("click", () => { page += 1; show(); });
    byId("rows").tHead.addEventListener("click", (event) => {
      const head = event.target.closest("th[data-key]");
      if (!head) return;
      rising = head.dataset.key === key ? !rising : true;
      key = head.dataset.key;
      order.sort(compare);
      page = 0;
      show();
    });
    const body = byId("rows").tBodies[0];
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr.effect");
      if (row) choose(Number(row.dataset.row));
    });
    body.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const row = step && event.target.closest("tr.effect");
      if (!row) return;
      const rows = Array.from(body.querySelectorAll("tr.effect"));
      const next = rows[rows.indexOf(row) + step];
      if (!next) return;
      event.preventDefault();
      next.querySelector(".pick").focus();
      if (!inline.matches) choose(Number(next.dataset.row));
    });
    select();
    if (!inline.matches && order.length) { byId("one").hidden = false; choose(order[0]); }
  }

  for (const query of [dark, narrow]) query.addEventListener("change", drawAll);
  inline.addEventListener("change", () => { if (table && chosen >= 0) { mark(); drawForest(); } });
  // On paper the page is light and narrower: it takes that form while it is printed.
  window.addEventListener("beforeprint", () => { root.dataset.printing = "yes"; drawAll(); });
  window.addEventListener("afterprint", () => { delete root.dataset.printing; drawAll(); });
  if (places.length) drawFigure(places[0]);
  if (table) startTable();
  drawNext();
})();
