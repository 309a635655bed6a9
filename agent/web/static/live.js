// Keeps an open page as it is on the box: loads <main> again when there is news, and says so when nothing is heard.
"use strict";
(() => {
  const main = document.getElementById("main");
  const state = document.getElementById("live");
  const stale = document.getElementById("stale");
  const SILENT_MS = 6000; // three beats
  const AGAIN_MS = { news: 700, beat: 5000 };
  let offset = Number(main.dataset.now) - Date.now(); // the box's clock against this one
  let fresh = Number(main.dataset.now); // of when <main> is, by the box's clock
  let heard = Date.now();
  let silent = false;
  let wanted = false;
  let loading = false;
  let loaded = 0;

  const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

  function ages() {
    for (const one of document.querySelectorAll("time.age")) {
      const seconds = Math.max(0, Math.round((Date.now() + offset - Number(one.dataset.ms)) / 1000));
      const [unit, number] = seconds < 120 ? ["s", seconds] : seconds < 7200 ? ["m", Math.floor(seconds / 60)]
        : seconds < 172800 ? ["h", Math.floor(seconds / 3600)] : ["d", Math.floor(seconds / 86400)];
      const text = one.dataset[unit].replace("{number}", number);
      if (one.textContent !== text) one.textContent = text;
    }
  }

  function tell() {
    const lost = Date.now() - heard > SILENT_MS;
    const text = lost ? state.dataset.lost : silent ? state.dataset.silent : "";
    const shown = text.replace("{time}", clock(fresh));
    if (stale.textContent !== shown) stale.textContent = shown;
    stale.hidden = !text;
    const mark = text ? "" : state.dataset.live;
    if (state.textContent !== mark) state.textContent = mark;
  }

  async function load() {
    if (loading || !main.dataset.live) return;
    loading = true;
    wanted = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") { location.reload(); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
      if (!answer.ok || !page) return; // what is shown stays, and is said to be stale
      replace(page);
      fresh = Number(page.dataset.now);
    } catch { /* told by the silence */ } finally {
      loading = false;
      loaded = Date.now();
    }
  }

  function replace(page) {
    const focused = document.activeElement && main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    main.replaceChildren(...page.childNodes);
    main.dataset.live = page.dataset.live;
    if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    broken();
    ages();
    main.dispatchEvent(new CustomEvent("replaced"));
  }

  function broken() { // a picture that was not kept leaves its place empty
    for (const image of main.querySelectorAll("img")) {
      const hide = () => { image.hidden = true; };
      if (image.complete && image.naturalWidth === 0 && image.loading !== "lazy") hide();
      image.addEventListener("error", hide, { once: true });
    }
  }

  function listen() {
    const events = new EventSource("/events");
    const hear = (event) => {
      const facts = JSON.parse(event.data);
      heard = Date.now();
      offset = facts.now_ms - heard;
      silent = facts.silent;
    };
    events.addEventListener("beat", (event) => {
      hear(event);
      if (!silent && !wanted && main.dataset.live === "news") fresh = heard + offset; // nothing is new since
      if (main.dataset.live === "beat" && Date.now() - loaded > AGAIN_MS.beat) wanted = true;
    });
    events.addEventListener("news", (event) => { hear(event); wanted = true; });
  }

  setInterval(() => {
    ages();
    if (!main.dataset.live) return; // a page that never changes is never stale
    tell();
    if (Date.now() - heard > SILENT_MS && Date.now() - loaded > AGAIN_MS.beat) wanted = true; // the stream may be refused
    if (wanted && Date.now() - loaded > AGAIN_MS.news) load();
  }, 250);
  if (main.dataset.live) {
    listen();
    tell();
  }
  broken();
  ages();
})();
