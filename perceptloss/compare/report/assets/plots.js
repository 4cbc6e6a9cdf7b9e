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

/* A waterfall says which image is under the pointer; a click opens it, or finds its scores. */
for (const figure of all("#waterfalls figure")) {
  const svg = figure.querySelector("svg"), said = figure.querySelector(".pointed");
  const order = figure.dataset.order.split(" ").map(Number);
  const { left, bar, critic, system } = Object.fromEntries(Object.entries(figure.dataset).map(([k, v]) => [k, Number(v)]));
  const under = (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    return order[Math.floor((x - left) / bar)];
  };
  const text = (image) => {
    const [own, base] = [system, data.base].map((n) => data.values[n][critic][image]);
    return `${data.keys[image]}: ${shown(base)} → ${shown(own)} (${signed(own - base)})`;
  };
  svg.addEventListener("pointermove", (event) => {
    const image = under(event);
    said.textContent = image === undefined ? "" : text(image);
  });
  svg.addEventListener("click", (event) => {
    const image = under(event);
    if (image === undefined || event.target.closest("a")) return;
    if (image in data.shots) openShot(data.shots[image]);
    else {
      showImages(data.keys[image]);
      document.getElementById("per-image").scrollIntoView();
    }
  });
}
