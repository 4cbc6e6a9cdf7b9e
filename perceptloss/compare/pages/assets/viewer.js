/* Pictures of one image beside each other, under a slider, or in turn. */
const viewer = document.getElementById("viewer");
const control = Object.fromEntries(all("[data-do]", viewer).map((item) => [item.dataset.do, item]));
const stage = viewer.querySelector(".stage"), ZOOMS = [...control.zoom.options].map((option) => Number(option.value));
const shots = all("[data-shot]").filter((shot) => shot.querySelector("img[data-pane]"));
const state = { view: new View(), mode: "side by side", panes: [], isSwapped: false, lens: null, which: new Set() };

function loaded(shot) {
  return Promise.all(all("img[data-pane]", shot).map(async (picture) => {
    await picture.decode();
    const map = shot.querySelector(`img[data-quality="${picture.dataset.pane}"]`);
    await map?.decode();
    return { name: picture.nextElementSibling.textContent, picture: canvasOf(picture), quality: map && canvasOf(map) };
  }));
}

async function openShot(number) {
  const place = shots.findIndex((shot) => Number(shot.dataset.shot) === number);
  if (place < 0) return document.getElementById("image-" + number)?.scrollIntoView();
  await choose(place);
  viewer.scrollIntoView();
  viewer.focus({ preventScroll: true });
}

async function choose(place) {
  const shot = shots[place], panes = await loaded(shot), names = panes.map((pane) => pane.name);
  const isNew = !state.panes.length;
  state.panes = panes;
  control.shot.value = place;
  const reference = panes.at(-1).name === "reference" ? panes.at(-1).picture : null;
  for (const pane of panes) pane.difference = reference && differenceOf(pane.picture, reference);
  control.difference.disabled = !reference;
  if (isNew) {
    for (const menu of [control.a, control.b]) names.forEach((name, n) => menu.append(element("option", name, { value: n })));
    control.b.value = Math.min(1, names.length - 1);
    names.forEach((name, n) => {
      const box = element("input", "", { type: "checkbox", checked: n < 3 || n === names.length - 1 }), label = element("label");
      box.addEventListener("change", () => { box.checked ? state.which.add(n) : state.which.delete(n); draw(); });
      if (box.checked) state.which.add(n);
      label.append(box, " " + name);
      control.which.append(label);
    });
  }
  state.view.x = state.view.y = 0;
  draw();
}

function shownPanes() {
  const [a, b] = [control.a, control.b].map((menu) => state.panes[Number(menu.value)]);
  if (state.mode === "side by side") return [...state.which].sort((x, y) => x - y).slice(0, 4).map((n) => state.panes[n]);
  return state.mode === "flicker" ? [state.isSwapped ? b : a] : [a];
}

function draw() {
  const panes = shownPanes(), isSlider = state.mode === "slider", other = isSlider ? state.panes[Number(control.b.value)] : null;
  while (stage.children.length > panes.length) stage.lastChild.remove();
  while (stage.children.length < panes.length) {
    const box = element("div");
    box.append(element("div", "", { className: "pane-name" }), element("canvas"));
    stage.append(box);
  }
  const pictureOf = (pane) =>
    (control.quality?.checked && pane.quality) || (control.difference.checked && pane.difference) || pane.picture;
  panes.forEach((pane, n) => {
    const [name, canvas] = stage.children[n].children;
    name.textContent = other ? `${pane.name} | ${other.name}` : pane.name;
    canvas.setAttribute("aria-label", name.textContent);
    state.view.draw(canvas, pictureOf(pane), other && pictureOf(other), isSlider ? control.wipe.value / 1000 : 1,
      control.lens.checked ? state.lens : null);
  });
  control.wipe.parentElement.hidden = !isSlider;
  control.wipe.style.maxWidth = stage.querySelector("canvas")?.style.maxWidth;
  control.which.hidden = state.mode !== "side by side";
  control.scale.hidden = !control.difference.checked;
  control.caption.textContent = panes.length ? "" : "Nothing is chosen.";
  for (const button of all("[data-mode]", viewer)) button.ariaPressed = String(button.dataset.mode === state.mode);
}

function setMode(mode) { state.mode = mode; state.isSwapped = false; draw(); }

function zoomTo(zoom, x = null, y = null) {
  const canvas = stage.querySelector("canvas");
  state.view.scale(zoom, x ?? canvas.clientWidth / 2, y ?? canvas.clientHeight / 2);
  control.zoom.value = zoom;
  draw();
}

const zoomBy = (step, x, y) =>
  zoomTo(ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, ZOOMS.indexOf(state.view.zoom) + step))], x, y);

function exported() {
  const canvases = all("canvas", stage), names = all(".pane-name", stage).map((name) => name.textContent);
  const line = 22, width = canvases.reduce((sum, canvas) => sum + canvas.width + 8, -8);
  const whole = element("canvas", "", { width, height: Math.max(...canvases.map((canvas) => canvas.height)) + line });
  const context = whole.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, whole.width, whole.height);
  context.font = "14px sans-serif";
  context.fillStyle = "#000";
  let left = 0;
  canvases.forEach((canvas, n) => {
    context.fillText(names[n], left + 2, 16, canvas.width - 4);
    context.drawImage(canvas, left, line);
    left += canvas.width + 8;
  });
  whole.toBlob((blob) => save(blob, "comparison.png"));
}

if (shots.length) {
  shots.forEach((shot, n) => control.shot.append(element("option", shot.querySelector("h3").textContent, { value: n })));
  control.shot.addEventListener("change", () => choose(Number(control.shot.value)));
  for (const item of [control.a, control.b, control.lens, control.difference, control.quality])
    item?.addEventListener("change", draw);
  control.wipe.addEventListener("input", draw);
  control.zoom.addEventListener("change", () => zoomTo(Number(control.zoom.value)));
  control.export.addEventListener("click", exported);
  for (const button of all("[data-mode]", viewer)) button.addEventListener("click", () => setMode(button.dataset.mode));
  for (const link of all("[data-open]"))
    link.addEventListener("click", (event) => { event.preventDefault(); openShot(Number(link.dataset.open)); });
  const next = (step) => choose((Number(control.shot.value) + step + shots.length) % shots.length);
  const toggle = (box) => () => { if (!box.disabled) box.checked = !box.checked; draw(); };
  const far = 40, moved = (x, y) => () => { state.view.move(x, y); draw(); };
  const keys = {
    ArrowLeft: moved(-far, 0), ArrowRight: moved(far, 0), ArrowUp: moved(0, -far), ArrowDown: moved(0, far),
    "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), "[": () => next(-1), "]": () => next(1),
    f: () => { if (state.mode !== "flicker") setMode("flicker"); else { state.isSwapped = !state.isSwapped; draw(); } },
    s: () => setMode("slider"), v: () => setMode("side by side"), m: toggle(control.lens), d: toggle(control.difference),
    ...(control.quality && { q: toggle(control.quality) }),
  };
  viewer.addEventListener("keydown", (event) => {
    const isTyping = ["SELECT", "INPUT"].includes(event.target.tagName) && event.target.type !== "checkbox";
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  let held = null;
  stage.addEventListener("pointerdown", (event) => { held = event; event.target.setPointerCapture?.(event.pointerId); });
  stage.addEventListener("pointerup", () => { held = null; });
  stage.addEventListener("pointermove", (event) => {
    state.lens = { x: event.offsetX, y: event.offsetY };
    if (held) {
      const dots = window.devicePixelRatio || 1;
      state.view.move((held.clientX - event.clientX) * dots, (held.clientY - event.clientY) * dots);
      held = event;
    }
    if (held || control.lens.checked) draw();
  });
  stage.addEventListener("pointerleave", () => { state.lens = null; draw(); });
  stage.addEventListener("wheel", (event) => {
    if (event.target.tagName !== "CANVAS" || !event.ctrlKey) return;
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1 : -1, event.offsetX, event.offsetY);
  }, { passive: false });
  window.addEventListener("resize", draw);
  control.zoom.value = state.view.zoom;
  choose(0);
} else viewer.hidden = true;
