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
