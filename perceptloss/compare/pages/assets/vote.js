/* Questions one after another; answers stay in this browser until they are saved. */
const part = Object.fromEntries(all("[id]").map((item) => [item.id, item]));
const canvases = ["left", "reference", "right"].map((name) => part[name]).filter(Boolean);
const view = new View(), STORE = "perceptloss-" + data.page, ANSWERS = ["left", "right", "tie"];
let voter = "", answers = [], place = 0, began = 0, panes = [];

function remember() {
  try { localStorage.setItem(STORE, JSON.stringify({ voter, answers })); } catch { /* a browser may forbid it */ }
}

function recalled() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    const isFine = typeof kept.voter === "string" && kept.answers.length <= data.trials.length &&
      kept.answers.every(([answer, seconds]) => ANSWERS.includes(answer) && Number.isFinite(seconds));
    return isFine ? kept : null;
  } catch { return null; }
}

function showPart(name) { for (const other of ["start", "ask", "end"]) part[other].hidden = other !== name; }

async function pictureOf(number) {
  const image = new Image();
  image.src = data.pictures[number];
  await image.decode();
  return canvasOf(image);
}

async function ask() {
  part.progress.value = place;
  if (place >= data.trials.length) return showPart("end");
  showPart("ask");
  const trial = data.trials[place], asked = place;
  const found = await Promise.all(canvases.map((canvas) => pictureOf(trial[canvas.id])));
  if (asked !== place) return;
  panes = found;
  view.x = view.y = 0;
  part.where.textContent = `${place + 1} of ${data.trials.length}`;
  part.back.disabled = place === 0;
  draw();
  began = performance.now();
}

function draw() { canvases.forEach((canvas, n) => panes[n] && view.draw(canvas, panes[n])); }

function answer(side) {
  if (part.ask.hidden || !panes.length || (side === "tie" && !data.ties)) return;
  answers[place] = [side, Math.round((performance.now() - began) / 100) / 10];
  place += 1;
  panes = [];
  remember();
  ask();
}

function back() {
  if (part.ask.hidden || place === 0) return;
  place -= 1;
  answers.length = place;
  remember();
  ask();
}

function checked(text) {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return "c" + value.toString(16).padStart(8, "0");
}

function csv() {
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const safe = /^\s*[=+\-@]/.test(voter) ? "'" + voter : voter;
  const rows = data.trials.map((trial, n) => {
    const [side, seconds] = answers[n], facts = [data.page, voter, String(n + 1), ...trial.codes, side];
    return [data.page, safe, ...facts.slice(2), String(seconds), checked(facts.join(","))].map(cell).join(",");
  });
  return ["page,voter,trial,left,right,answer,seconds,check", ...rows].join("\n") + "\n";
}

const clean = (text) => text.normalize("NFC").replace(/\p{C}/gu, "").trim();

part.begin.addEventListener("click", () => {
  voter = clean(part.voter.value) || "voter-" + Math.random().toString(36).slice(2, 8);
  remember();
  ask();
});
part.voter.addEventListener("keydown", (event) => { if (event.key === "Enter") part.begin.click(); });
part.save.addEventListener("click", () => {
  save(new Blob([csv()], { type: "text/csv" }), `votes-${data.page}-${voter.replace(/[^\p{L}\p{N}]+/gu, "_")}.csv`);
  part.saved.textContent = "saved by your browser, among its downloads";
});
part.again.addEventListener("click", () => {
  voter = part.voter.value = part.saved.textContent = "";
  answers = [];
  place = 0;
  remember();
  showPart("start");
});
part.back.addEventListener("click", back);
for (const button of all("[data-answer]")) button.addEventListener("click", () => answer(button.dataset.answer));

function zoomTo(zoom) {
  view.scale(zoom, canvases[0].clientWidth / 2, canvases[0].clientHeight / 2);
  part.zoom.value = zoom;
  draw();
}
part.zoom.addEventListener("change", () => zoomTo(Number(part.zoom.value)));
const zoomBy = (step) => { const next = part.zoom.options[part.zoom.selectedIndex + step]; if (next) zoomTo(Number(next.value)); };
const keys = {
  ArrowLeft: () => answer("left"), ArrowRight: () => answer("right"), ArrowDown: () => answer("tie"), Backspace: back,
  "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1),
};
document.addEventListener("keydown", (event) => {
  if (part.ask.hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !(event.key in keys)) return;
  if (event.target.tagName === "SELECT") return;
  event.preventDefault();
  keys[event.key]();
});
let held = null;
part.votes.addEventListener("pointerdown", (event) => { held = event; event.target.setPointerCapture?.(event.pointerId); });
part.votes.addEventListener("pointerup", () => { held = null; });
part.votes.addEventListener("pointermove", (event) => {
  if (!held) return;
  const dots = window.devicePixelRatio || 1;
  view.move((held.clientX - event.clientX) * dots, (held.clientY - event.clientY) * dots);
  held = event;
  draw();
});
window.addEventListener("resize", draw);

part.zoom.value = view.zoom;
const kept = recalled();
if (kept?.voter) { ({ voter, answers } = kept); place = answers.length; ask(); }
