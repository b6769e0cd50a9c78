// The page of a board: filters, order and columns of its table, its plots, and its downloads.
if (document.getElementById("board")) {
  const { make } = convboard;
  const data = convboard.data("data");
  const table = document.getElementById("board");
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells].filter((header) => header.dataset.column);
  const rows = [...body.rows];
  const facts = new Map(data.rows.map((row) => [row.key, row]));
  const cells = new Map(rows.map((row) => [
    row, new Map([...row.cells].filter((c) => c.dataset.column).map((c) => [c.dataset.column, c])),
  ]));
  const kind = (key) => key.split("-")[0];
  const times = data.times.map((time) => time.key);
  const usual = times[0] ?? "";
  const known = headers.filter((h) => ["", usual].includes(h.dataset.choice));
  const normal = known.filter((h) => h.dataset.shown === "1").map((h) => kind(h.dataset.column));
  const fields = ["search", "family", "seeds", "form", "noise"]
    .map((id) => [id === "search" ? "q" : id, document.getElementById(id)]);
  const time = document.getElementById("time");
  const plots = [...document.querySelectorAll(".plot")];
  const hasRelative = plots.some((plot) => plot.dataset.axes === "relative");
  const axes = hasRelative ? "relative" : "absolute";
  const view = { t: usual, axes, sort: "rank", cols: normal, open: [] };
  for (const [name] of fields) view[name] = "";

  function read() {
    const given = convboard.view();
    view.t = times.includes(given.t) ? given.t : usual;
    view.axes = ["relative", "absolute"].includes(given.axes) ? given.axes : axes;
    view.sort = given.sort ?? "rank";
    view.cols = given.cols ? given.cols.split(",").filter((c) => known.some((h) => kind(h.dataset.column) === c)) : normal;
    view.open = given.open ? given.open.split(",") : [];
    for (const [name, field] of fields) {
      field.value = given[name] ?? "";
      view[name] = field.value;
    }
    time.value = view.t;
  }

  function write() {
    const same = view.cols.join() === normal.join();
    convboard.keep({
      t: view.t === usual ? "" : view.t,
      axes: view.axes === axes ? "" : view.axes,
      sort: view.sort === "rank" ? "" : view.sort,
      q: view.q, family: view.family, seeds: view.seeds, form: view.form, noise: view.noise,
      cols: same ? "" : view.cols.join(),
      open: view.open.join(),
    });
  }

  function wanted(row) {
    const fact = facts.get(row.dataset.key);
    return (!view.family || row.dataset.family === view.family)
      && (!view.seeds || Number(row.dataset.seeds) >= Number(view.seeds))
      && (!view.form || row.dataset.form === view.form)
      && (!view.noise || fact.times[view.t]?.noise === view.noise)
      && (!view.q || `${fact.label} ${fact.operator} ${JSON.stringify(fact.operator_options)} ${fact.notes.join(" ")}`
        .toLowerCase().includes(view.q.toLowerCase()));
  }

  function column(name) {
    return headers.find((h) => kind(h.dataset.column) === name && ["", view.t].includes(h.dataset.choice));
  }

  function show() {
    let lead = "";
    for (const part of document.querySelectorAll(".verdict")) {
      part.hidden = part.dataset.choice !== view.t;
      if (!part.hidden) lead = part.dataset.lead;
    }
    for (const row of rows) row.classList.toggle("chosen", row.dataset.key === lead);
    // a time without the baseline's has absolute axes only
    const drawable = plots.filter((plot) => plot.dataset.choice === view.t).map((plot) => plot.dataset.axes);
    const against = drawable.includes(view.axes) ? view.axes : drawable[0];
    for (const plot of plots) plot.hidden = plot.dataset.choice !== view.t || plot.dataset.axes !== against;
    for (const button of document.querySelectorAll("[data-set-axes]")) {
      button.hidden = !drawable.includes(button.dataset.setAxes);
      button.setAttribute("aria-pressed", String(button.dataset.setAxes === against));
    }
    for (const button of document.querySelectorAll("#plot-svg, #plot-png")) button.disabled = !drawable.length;
    for (const header of headers) {
      const visible = view.cols.includes(kind(header.dataset.column))
        && ["", view.t].includes(header.dataset.choice);
      header.hidden = !visible;
      for (const row of rows) {
        const cell = cells.get(row).get(header.dataset.column);
        if (cell) cell.hidden = !visible;
      }
      header.setAttribute("aria-sort", "none");
    }
    const descending = view.sort.startsWith("-");
    const by = column(view.sort.replace(/^-/, "")) ?? headers[0];
    by.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const ordered = convboard.sort(
      rows, (row) => cells.get(row).get(by.dataset.column), descending, by.classList.contains("text"),
    );
    for (const old of body.querySelectorAll("tr.detail")) old.remove();
    const focused = document.activeElement; // a row that is moved loses the focus
    let count = 0;
    const hidden = new Set();
    for (const row of ordered) {
      row.hidden = !wanted(row);
      if (row.hidden) hidden.add(row.dataset.key); else count += 1;
      body.append(row);
      const open = view.open.includes(row.dataset.arm);
      const button = row.querySelector(".expand");
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "−" : "+";
      if (open && !row.hidden) body.append(detail(row));
    }
    if (body.contains(focused)) focused.focus({ preventScroll: true });
    for (const part of document.querySelectorAll(".plot [data-arm]")) {
      part.style.display = hidden.has(part.dataset.arm) ? "none" : "";
    }
    document.getElementById("count").textContent = count === rows.length
      ? `${count} operators.` : `${count} of ${rows.length} operators shown.`;
    const drawn = new Set([...document.querySelectorAll(".plot:not([hidden]) .wide .point")].map((p) => p.dataset.arm));
    const missing = data.rows.filter((row) => !drawn.has(row.key)).map((row) => row.label);
    const note = document.getElementById("unplotted");
    if (note) note.textContent = missing.length ? ` Not in the plot, for want of a score or a time: ${missing.join(", ")}.` : "";
  }

  function number(value) {
    if (value == null) return "—";
    const size = Math.abs(value);
    const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
  }

  function detail(row) {
    const fact = facts.get(row.dataset.key);
    const list = make("dl");
    const add = (name, words) => list.append(make("dt", {}, name), make("dd", {}, words));
    const scaled = (value) => number(value == null ? null : value * data.scale);
    add(`Scores by seed${data.score_unit ? ` (${data.score_unit})` : ""}`,
      Object.entries(fact.seeds).map(([seed, value]) => `seed ${seed}: ${scaled(value)}`).join(" · ") || "—");
    if (fact.rank != null) add("Places left open", `${fact.rank_best} to ${fact.rank_worst}`);
    if (fact.p_best != null) add("Probability to be the best", fact.p_best_words);
    for (const one of data.times) {
      const taken = fact.times[one.key];
      if (!taken || taken.ms == null) continue;
      const ratio = taken.ratio == null ? "" : `, ${number(taken.ratio)}× ${taken.ratio_bounds}`;
      const words = [...time.options].find((option) => option.value === one.key).textContent;
      add(words, `${number(taken.ms)} ms ${taken.ms_bounds}${ratio}, ${taken.noise ?? "noise unknown"}`);
    }
    for (const note of fact.notes) add("Note", note);
    const links = make("p", { class: "actions" },
      make("a", { class: "button", href: row.querySelector("th a").getAttribute("href") }, "Everything about this entry"));
    const base = rows.find((other) => facts.get(other.dataset.key).baseline);
    if (base && base !== row) {
      links.append(make("a", { class: "button", href: `../compare.html#a=${row.dataset.arm}&b=${base.dataset.arm}` }, `Compare with ${facts.get(base.dataset.key).label}`));
    }
    return make("tr", { class: "detail" }, make("td", { colspan: String(headers.length + 1) }, list, links));
  }

  function change(values) {
    Object.assign(view, values);
    write();
    show();
  }

  for (const [name, field] of fields) field.addEventListener("input", () => change({ [name]: field.value }));
  time.addEventListener("change", () => change({ t: time.value }));
  for (const button of document.querySelectorAll("[data-set-axes]")) {
    button.addEventListener("click", () => change({ axes: button.dataset.setAxes }));
  }
  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => {
      const first = header.dataset.first === "descending" ? "-" : "";
      const second = first ? "" : "-";
      const name = kind(header.dataset.column);
      change({ sort: view.sort === first + name ? second + name : first + name });
    });
  }
  for (const row of rows) {
    row.querySelector(".expand").addEventListener("click", () => {
      const arm = row.dataset.arm;
      change({ open: view.open.includes(arm) ? view.open.filter((a) => a !== arm) : [...view.open, arm] });
    });
  }
  const chooser = document.querySelector("#columns .columns");
  for (const header of known) {
    const name = kind(header.dataset.column);
    const box = make("input", { type: "checkbox", "data-kind": name });
    box.disabled = name === "arm";
    box.addEventListener("change", () => {
      const chosen = known.map((h) => kind(h.dataset.column))
        .filter((k) => (k === name ? box.checked : view.cols.includes(k)));
      change({ cols: chosen });
    });
    chooser.append(make("label", {}, box, header.dataset.name));
  }
  const tick = () => { for (const box of chooser.querySelectorAll("input")) box.checked = view.cols.includes(box.dataset.kind); };
  const name = location.pathname.split("/").pop().replace(/\.html$/, "");
  const shown = () => [...body.rows].filter((row) => row.dataset.key && !row.hidden).map((row) => facts.get(row.dataset.key));
  document.getElementById("json").addEventListener("click", () => {
    convboard.save(`${name}.json`, "application/json", JSON.stringify({ ...data, rows: shown() }, null, 1));
  });
  document.getElementById("csv").addEventListener("click", () => convboard.save(`${name}.csv`, "text/csv", csv(shown())));
  document.getElementById("copy-link").addEventListener("click", (event) => convboard.copy(event.currentTarget, location.href));
  document.getElementById("reset").addEventListener("click", () => {
    convboard.keep({});
    read();
    tick();
    show();
  });
  addEventListener("hashchange", () => { read(); tick(); show(); });

  function csv(list) {
    const plain = ["label", "operator", "operator_options", "rank", "rank_best", "rank_worst", "tie", "score", "score_low", "score_high",
      "gain", "gain_low", "gain_high", "p_best", "params", "macs", "form", "baseline", "tuned_trials", "notes"];
    const timed = ["ms", "ms_low", "ms_high", "images_per_second", "ratio", "ratio_low", "ratio_high", "verdict", "noise", "front"];
    const quote = (value) => {
      if (value == null) return "";
      if (Array.isArray(value)) return quote(value.join(" "));
      if (typeof value === "object") return quote(JSON.stringify(value));
      // a spreadsheet must not take a name for a formula
      const text = typeof value === "string" ? value.replace(/^[=+\-@\t\r]/, "'$&") : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [[...plain, "seeds", "time", ...timed]];
    const words = data.times.find((one) => one.key === view.t);
    for (const row of list) {
      const time = row.times[view.t] ?? {};
      lines.push([...plain.map((key) => row[key]), Object.keys(row.seeds).length,
        words ? `${words.words}; ${words.where}` : "", ...timed.map((key) => time[key])]);
    }
    return lines.map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
  }

  // a plot by itself: what the style sheet says of it is written into it
  function alone() {
    const source = [...document.querySelectorAll(".plot:not([hidden]) svg")].find((svg) => svg.getBoundingClientRect().width);
    const copy = source.cloneNode(true);
    const from = [source, ...source.querySelectorAll("*")];
    const to = [copy, ...copy.querySelectorAll("*")];
    to.forEach((element, index) => {
      const style = getComputedStyle(from[index]);
      for (const key of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "color", "font-size", "font-family", "font-weight"]) {
        element.style.setProperty(key, style.getPropertyValue(key));
      }
    });
    for (const element of copy.querySelectorAll("[data-arm]")) if (element.style.display === "none") element.remove();
    for (const link of copy.querySelectorAll("a")) link.replaceWith(...link.childNodes);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const [, , width, height] = source.getAttribute("viewBox").split(" ");
    const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    paper.setAttribute("width", width);
    paper.setAttribute("height", height);
    paper.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
    copy.prepend(paper);
    return { text: new XMLSerializer().serializeToString(copy), width: Number(width), height: Number(height) };
  }
  document.getElementById("plot-svg")?.addEventListener("click", () => convboard.save(`${name}.svg`, "image/svg+xml", alone().text));
  document.getElementById("plot-png")?.addEventListener("click", () => {
    const { text, width, height } = alone();
    const image = new Image();
    image.onload = () => {
      const canvas = make("canvas");
      canvas.width = 2 * width;
      canvas.height = 2 * height;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => convboard.save(`${name}.png`, "image/png", blob));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  });

  read();
  tick();
  show();
}
