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
