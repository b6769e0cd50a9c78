"use strict";
// What all pages share. Nothing from records is ever markup or code: text is set as text, and the
// cards of other pages are markup that the build has escaped.
const convboard = (() => {
  const root = document.currentScript.getAttribute("src").replace(/assets\/site\.js$/, "");
  const boards = new Map();
  const waiting = new Map();
  return {
    root,
    board(name, data) { boards.set(name, data); },
    // a script, because a page that lies in a folder (file://) may not fetch
    load(name) {
      if (!waiting.has(name)) {
        waiting.set(name, new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = `${root}boards/${name}.js`;
          script.onload = () => resolve(boards.get(name));
          script.onerror = () => reject(new Error(`${script.src} is not there`));
          document.head.append(script);
        }));
      }
      return waiting.get(name);
    },
    data(id) {
      const place = document.getElementById(id);
      return place ? JSON.parse(place.textContent) : null;
    },
    // the view of a page stands behind the # of its address: `a=1&b=2`, empty values left out
    view() { return Object.fromEntries(new URLSearchParams(location.hash.slice(1))); },
    keep(view) {
      const given = Object.entries(view).filter(([, value]) => value !== "" && value != null);
      const text = new URLSearchParams(given).toString().replace(/%2C/g, ",");
      history.replaceState(null, "", text ? `#${text}` : location.href.split("#")[0]);
    },
    make(name, attributes = {}, ...content) {
      const element = document.createElement(name);
      for (const [key, value] of Object.entries(attributes)) {
        if (key === "class") element.className = value; else element.setAttribute(key, value);
      }
      element.append(...content);
      return element;
    },
    save(name, type, content) {
      const link = document.createElement("a");
      link.href = content instanceof Blob
        ? URL.createObjectURL(content) : URL.createObjectURL(new Blob([content], { type }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    },
    async copy(button, text, select) {
      button.dataset.label ??= button.textContent; // a second click finds "Copied" there
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        if (select) { getSelection().selectAllChildren(select); button.textContent = "Selected"; }
        else { prompt("Copy this:", text); }
      }
      setTimeout(() => { button.textContent = button.dataset.label; }, 1600);
    },
    // orders rows by the data-value of a cell; missing values stay last whatever the order
    sort(rows, cell, descending, text) {
      const sign = descending ? -1 : 1;
      return [...rows].sort((a, b) => {
        const x = cell(a)?.dataset.value ?? "";
        const y = cell(b)?.dataset.value ?? "";
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (text ? x.localeCompare(y) : Number(x) - Number(y));
      });
    },
    // on a telephone a row is a card, in which every cell says its column
    cards(table) {
      const names = [...table.tHead.rows[0].cells]
        .map((header) => header.dataset.name ?? header.textContent.trim().replace(/\s+/g, " "));
      for (const row of table.tBodies[0].rows) {
        [...row.cells].forEach((cell, index) => {
          if (cell.scope !== "row") cell.dataset.label = names[index];
        });
      }
      table.classList.add("cards");
    },
    options(select, values) {
      select.replaceChildren(...values.map(([value, words]) => {
        const option = document.createElement("option");
        option.value = value;
        option.textContent = words;
        return option;
      }));
    },
  };
})();

for (const table of document.querySelectorAll("table.carded")) convboard.cards(table);

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  headers.forEach((header, column) => {
    header.querySelector("button")?.addEventListener("click", () => {
      const first = header.dataset.first || "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = header.getAttribute("aria-sort") === first ? second : first;
      for (const other of headers) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", order);
      table.tBodies[0].append(...convboard.sort(
        rows, (row) => row.cells[column], order === "descending", header.classList.contains("text"),
      ));
    });
  });
}

for (const button of document.querySelectorAll("button.copy")) {
  const code = button.parentElement.querySelector("pre");
  button.addEventListener("click", () => {
    convboard.copy(button, button.dataset.copy ?? code.textContent, button.dataset.copy ? null : code);
  });
}

// what a point of a plot is, where it is pointed at or focused
{
  const tip = convboard.make("div", { id: "tip", hidden: "" });
  document.body.append(tip);
  for (const point of document.querySelectorAll(".chart .point")) {
    const title = point.querySelector("title");
    if (!title) continue;
    const words = title.textContent;
    title.remove();
    const place = point.closest("a") ?? point;
    const show = () => {
      const box = (point.querySelector(".dot") ?? point).getBoundingClientRect();
      tip.textContent = words;
      tip.hidden = false;
      const left = Math.min(box.right + 10, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${Math.max(8, box.top - tip.offsetHeight - 8)}px`;
    };
    for (const event of ["pointerenter", "focus"]) place.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) place.addEventListener(event, () => { tip.hidden = true; });
  }
}
