// Keeps a page up to date: an evaluation's by events, the queue's by loading it again. Without this script both reload.
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
    document.querySelectorAll("progress").forEach((each) => { each.value = now.percent; });
  });
  source.addEventListener("done", () => { source.close(); location.reload(); });
}
const renewed = document.querySelector("[data-renew]");
if (renewed) {
  setInterval(() => { if (!document.hidden) location.reload(); }, 1000 * renewed.dataset.renew);
}
