"use strict";
// Sorting: a header button sorts the rows of its table by data-value; missing values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];
  headers.forEach((header, column) => {
    const button = header.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const first = header.dataset.first || "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = header.getAttribute("aria-sort") === first ? second : first;
      for (const other of headers) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const text = header.classList.contains("text");
      const rows = [...original].sort((a, b) => {
        const x = a.cells[column].dataset.value ?? "";
        const y = b.cells[column].dataset.value ?? "";
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (text ? x.localeCompare(y) : Number(x) - Number(y));
      });
      // the lines between tie groups mean something in the order of ranks only
      const ranked = column === 0 && order === "ascending";
      for (const row of rows) row.classList.toggle("group", ranked && row.dataset.group === "1");
      body.append(...(ranked ? original : rows));
    });
  });
}
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}
