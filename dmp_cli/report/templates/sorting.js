// A click or a key on a header sorts its table: up, down, then as it was.
const numberOf = (text) => {
  const found = text.replace(/[−–]/g, "-").match(/^[^\d+-]*([-+]?\s*\d[\d,]*(\.\d+)?(e[-+]?\d+)?)/i);
  return found ? Number(found[1].replace(/[\s,]/g, "")) : NaN;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  if (rows.length < 2) continue;
  heads.forEach((head, column) => {
    const values = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const numbers = new Map(rows.map((row) => [row, numberOf(values.get(row))]));
    const known = (row) => !Number.isNaN(numbers.get(row));
    const numeric = head.classList.contains("number") || rows.every((row) => /^[-+−~≈<>]?\s*\d/.test(values.get(row)));
    const inWords = (a, b) => values.get(a).localeCompare(values.get(b), "en", { numeric: true });
    const compare = (a, b) => numeric ? numbers.get(a) - numbers.get(b) : inWords(a, b);
    const sort = document.createElement("button");
    sort.type = "button";
    sort.append(...head.childNodes);
    head.append(sort);
    sort.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const now = before === "ascending" ? "descending" : before ? null : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (now) head.setAttribute("aria-sort", now);
      const sign = now === "descending" ? -1 : 1;
      // Cells without a number stay last in both directions.
      const missing = (row) => numeric && !known(row);
      const sorted = [...rows].sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)));
      body.append(...(now ? sorted : rows));
    });
  });
}
