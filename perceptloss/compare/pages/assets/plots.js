/* Several drawings in one place: a menu chooses which is seen. Without script all are. */
for (const place of all(".choices")) {
  const figures = [...place.children];
  if (figures.length < 2) continue;
  const menu = element("select", "", { ariaLabel: "which drawing" });
  figures.forEach((figure, n) => menu.append(element("option", figure.dataset.label, { value: n })));
  const show = () => figures.forEach((figure, n) => { figure.hidden = n !== Number(menu.value); });
  menu.addEventListener("change", show);
  const tools = element("div", "", { className: "tools" });
  tools.append(menu);
  place.prepend(tools);
  show();
}
