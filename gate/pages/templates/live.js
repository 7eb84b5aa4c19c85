// Keeps a page up to date: an evaluation's by events, the queue's by loading it again. Without this script both reload.
const draw = (now) => {
  const list = document.querySelector("[data-narrowing]");
  let row = [...list.children].find((each) => each.dataset.capability === now.capability);
  if (!row) {
    row = list.parentElement.querySelector("template").content.firstElementChild.cloneNode(true);
    row.dataset.capability = row.querySelector("strong").textContent = now.capability;
    list.append(row);
    list.parentElement.hidden = false;
  }
  const set = (part, values) => Object.entries(values).forEach(([name, value]) => row.querySelector(`[data-part=${part}]`).setAttribute(name, value));
  set("lost", { width: now.margin - 4 });
  set("kept", { x: now.margin, width: 196 - now.margin });
  set("zero", { x1: now.zero, x2: now.zero });
  set("margin", { x1: now.margin, x2: now.margin });
  set("interval", { x: now.low, width: now.high - now.low, class: `measure ${now.state}` });
  set("at", { cx: now.at, class: `point ${now.state}` });
  row.querySelector("svg").setAttribute("aria-label", now.told);
  row.querySelector("[data-part=told]").textContent = now.told;
};
const live = document.querySelector("[data-events]");
if (live) {
  const source = new EventSource(live.dataset.events);
  const put = (name, text) => document.querySelectorAll(`[data-live=${name}]`).forEach((each) => { each.textContent = text; });
  source.addEventListener("message", (event) => {
    const now = JSON.parse(event.data);
    if (now.state !== live.dataset.state) location.reload();
    put("word", now.word);
    put("told", now.told);
    put("percent", `${now.percent} %`);
    put("left", now.left && `, ${now.left}`);
    now.narrowing.forEach(draw);
    document.querySelectorAll("progress").forEach((each) => { each.value = now.percent; });
  });
  source.addEventListener("done", () => { source.close(); location.reload(); });
}
const renewed = document.querySelector("[data-renew]");
if (renewed) {
  setInterval(() => { if (!document.hidden) location.reload(); }, 1000 * renewed.dataset.renew);
}
