const signed = (value) => (value > 0 ? "+" : "") + shown(value);
const shown = (value) => (value === null ? "n/a" : Number(value.toPrecision(4)).toString()).replace("-", "−");

/* A header that is pressed sorts by its column, pressed again the other way; rows without a number stay last. */
function sortable(head, sort) {
  for (const cell of head) {
    const button = element("button", cell.textContent, { type: "button" });
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const falls = cell.ariaSort === "ascending";
      for (const other of head) other.ariaSort = null;
      cell.ariaSort = falls ? "descending" : "ascending";
      sort(head.indexOf(cell), falls ? -1 : 1);
    });
  }
}

function compared(a, b, sign) {
  const isText = typeof a === "string" || typeof b === "string";
  if (isText) return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (a - b);
}

for (const table of all("table[data-sortable]")) {
  const value = (row, n) => {
    const cell = row.cells[n];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return table.classList.contains("text") || n === 0 ? cell.textContent : null;
  };
  sortable([...[...table.tHead.rows].at(-1).cells], (n, sign) => {
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compared(value(a, n), value(b, n), sign));
    table.tBodies[0].append(...rows);
  });
}

for (const input of all("input[data-filter]")) {
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows)
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}

for (const button of all("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const said = document.getElementById("copied"), text = data.copies[button.dataset.copy];
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "copied";
    } catch {
      save(new Blob([text], { type: "text/plain" }), "table." + { CSV: "csv", Markdown: "md", LaTeX: "tex" }[button.dataset.copy]);
      said.textContent = "saved as a file, since the clipboard is closed";
    }
  });
}
