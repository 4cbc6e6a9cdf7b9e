"use strict";
document.documentElement.classList.add("scripted");
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const element = (tag, text = "", facts = {}) => Object.assign(document.createElement(tag), { textContent: text }, facts);
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
  sortable([...table.tHead.rows].at(-1).cells.length ? [...[...table.tHead.rows].at(-1).cells] : [], (n, sign) => {
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

function save(blob, name) {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* Image by image: all scores of one system, a page at a time. */
{
  const PAGE = 50;
  const table = document.getElementById("image-table"), more = document.getElementById("more-images");
  const system = document.getElementById("of-system"), filter = document.getElementById("image-filter");
  const differs = document.getElementById("as-difference"), count = document.getElementById("image-count");
  let order = data.keys.map((_, n) => n), limit = PAGE;
  data.systems.forEach((name, n) => system.append(element("option", name, { value: n })));
  if (data.base !== null) system.value = data.systems.findIndex((_, n) => n !== data.base);
  const head = ["image", ...data.critics].map((text) => element("th", text, { scope: "col" }));
  table.tHead.append(element("tr"));
  table.tHead.rows[0].append(...head);
  const score = (critic, image) => {
    const own = data.values[system.value][critic][image];
    if (!differs?.checked || own === null) return own;
    const base = data.values[data.base][critic][image];
    return base === null ? null : own - base;
  };
  const show = () => {
    const wanted = filter.value.toLowerCase();
    const kept = order.filter((image) => data.keys[image].toLowerCase().includes(wanted));
    const rows = kept.slice(0, limit).map((image) => {
      const row = element("tr"), name = element("th", "", { scope: "row" });
      if (image in data.shots) name.append(element("a", data.keys[image], { href: "#image-" + data.shots[image] }));
      else name.textContent = data.keys[image];
      row.append(name, ...data.critics.map((_, critic) => {
        const value = score(critic, image);
        return element("td", value !== null && differs?.checked ? signed(value) : shown(value));
      }));
      return row;
    });
    table.tBodies[0].replaceChildren(...rows);
    count.textContent = `${rows.length} of ${kept.length} shown`;
    more.hidden = kept.length <= limit;
  };
  let sorted = null;
  const sort = (n, sign) => {
    sorted = [n, sign];
    const value = (image) => (n ? score(n - 1, image) : data.keys[image]);
    order.sort((a, b) => compared(value(a), value(b), sign));
    show();
  };
  sortable(head, sort);
  const again = () => (sorted ? sort(...sorted) : show());
  for (const input of [system, differs]) input?.addEventListener("change", again);
  filter.addEventListener("input", () => { limit = PAGE; show(); });
  more.addEventListener("click", () => { limit += 4 * PAGE; show(); });
  var showImages = (text) => { filter.value = text; limit = PAGE; show(); };
  show();
}
