// Zooms and moves a strip's pictures, lays the heat over them, and tells what is stored at a pixel.
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const layers = document.getElementById("layers");
  const base = document.getElementById("base");
  const heat = document.getElementById("heat");
  const boxes = document.getElementById("boxes");
  const cross = document.getElementById("cross");
  const value = document.getElementById("value");
  const height = Number(viewer.dataset.height);
  const width = Number(viewer.dataset.width);
  const turned = height > width; // the picture's columns are the strip's rows, from the left
  const across = turned ? height : width;
  const down = turned ? width : height;
  const MOST = 24;
  const ASK_MS = 180;
  let zoom = 1;
  let x = 0;
  let y = 0;
  let at = null; // column and row of the picture
  let asked = 0;
  let timer = 0;
  let question = 0;

  document.getElementById("tools").hidden = false;
  for (const one of document.querySelectorAll(".go")) one.hidden = false;

  function place() {
    const box = viewer.getBoundingClientRect();
    x = Math.min(0, Math.max(box.width * (1 - zoom), x));
    y = Math.min(0, Math.max(box.height - layers.offsetHeight * zoom, y));
    layers.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    viewer.classList.toggle("near", zoom > 2);
  }

  function zoomTo(next, px, py) {
    const bounded = Math.min(MOST, Math.max(1, next));
    x = px - (px - x) * (bounded / zoom);
    y = py - (py - y) * (bounded / zoom);
    zoom = bounded;
    place();
  }
  const middle = () => [viewer.clientWidth / 2, viewer.clientHeight / 2];

  function pixel(clientX, clientY) {
    const box = layers.getBoundingClientRect();
    const col = Math.floor((clientX - box.left) / box.width * across);
    const row = Math.floor((clientY - box.top) / box.height * down);
    return col >= 0 && row >= 0 && col < across && row < down ? [col, row] : null;
  }

  function point(next, follow) {
    if (!next || !across) return;
    at = [Math.min(across - 1, Math.max(0, next[0])), Math.min(down - 1, Math.max(0, next[1]))];
    const [col, row] = at;
    cross.firstElementChild.setAttribute("d",
      `M${col + 0.5} ${row - 12}v9M${col + 0.5} ${row + 4}v9M${col - 12} ${row + 0.5}h9M${col + 4} ${row + 0.5}h9M${col} ${row}h1v1h-1z`);
    cross.setAttribute("visibility", "visible");
    if (follow) {
      const scale = layers.offsetWidth / across * zoom;
      const left = x + col * scale;
      const top = y + row * scale;
      if (left < 20 || left > viewer.clientWidth - 20) x = viewer.clientWidth / 2 - col * scale;
      if (top < 20 || top > viewer.clientHeight - 20) y = viewer.clientHeight / 2 - row * scale;
      place();
    }
    clearTimeout(timer);
    timer = setTimeout(ask, Math.max(0, asked + ASK_MS - Date.now()));
  }

  async function ask() {
    asked = Date.now();
    const mine = ++question;
    const [col, row] = turned ? [width - 1 - at[1], at[0]] : at;
    const where = `${row}, ${col}`;
    try {
      const answer = await fetch(`${viewer.dataset.values}?row=${row}&col=${col}`);
      if (!answer.ok || mine !== question) return;
      const found = await answer.json();
      const say = (name) => {
        const label = document.querySelector(`input[name="base"][value$="/${name}.png"]`)?.parentElement.textContent.trim() ?? name;
        const number = found[name];
        return `${label} ${number === null ? viewer.dataset.none : Number(number.toPrecision(5))}`;
      };
      const heatLabel = document.querySelector('label[for="opacity"]')?.textContent ?? "heat";
      value.textContent = `[${where}] ` + ["target", "reference1", "reference2"].map(say).join(" · ")
        + ` · ${heatLabel} ${found.heat === null ? viewer.dataset.none : found.heat.toFixed(3)}`;
    } catch { value.textContent = `[${where}]`; }
  }

  const fingers = new Map();
  let moved = 0;
  viewer.addEventListener("pointerdown", (event) => {
    viewer.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 1) moved = 0;
  });
  viewer.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") point(pixel(event.clientX, event.clientY), false);
      return;
    }
    const now = [event.clientX, event.clientY];
    moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    if (fingers.size === 1) {
      x += now[0] - before[0];
      y += now[1] - before[1];
      place();
    } else {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]);
      const box = viewer.getBoundingClientRect();
      if (apart(before) > 0) zoomTo(zoom * apart(now) / apart(before), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
    }
    fingers.set(event.pointerId, now);
  });
  const lift = (event) => {
    if (fingers.delete(event.pointerId) && moved < 8 && event.type === "pointerup") point(pixel(event.clientX, event.clientY), false);
  };
  viewer.addEventListener("pointerup", lift);
  viewer.addEventListener("pointercancel", lift);
  viewer.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = viewer.getBoundingClientRect();
    zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  viewer.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      const from = at ?? [Math.floor(across / 2), Math.floor(down / 2)];
      point([from[0] + moves[event.key][0], from[1] + moves[event.key][1]], true);
    } else if (event.key === "+" || event.key === "=") zoomTo(zoom * 1.5, ...middle());
    else if (event.key === "-") zoomTo(zoom / 1.5, ...middle());
    else if (event.key === "0") zoomTo(1, 0, 0);
    else return;
    event.preventDefault();
  });

  document.getElementById("zoom-in").addEventListener("click", () => zoomTo(zoom * 1.5, ...middle()));
  document.getElementById("zoom-out").addEventListener("click", () => zoomTo(zoom / 1.5, ...middle()));
  document.getElementById("zoom-fit").addEventListener("click", () => zoomTo(1, 0, 0));
  document.getElementById("opacity")?.addEventListener("input", (event) => { heat.style.opacity = event.target.value / 100; });
  document.getElementById("show-boxes")?.addEventListener("change", (event) => {
    for (const one of boxes.querySelectorAll("rect")) one.setAttribute("visibility", event.target.checked ? "visible" : "hidden");
  });
  for (const radio of document.querySelectorAll('input[name="base"]')) {
    radio.addEventListener("change", () => { base.hidden = false; base.src = radio.value; });
  }
  for (const button of document.querySelectorAll(".go")) {
    button.addEventListener("click", () => {
      const [row, col] = [Number(button.dataset.row), Number(button.dataset.col)];
      viewer.scrollIntoView({ block: "center" });
      zoomTo(Math.max(zoom, 4), ...middle());
      x = y = 1e6; // so that it is moved to wherever the point is
      point(turned ? [row, width - 1 - col] : [col, row], true);
    });
  }
  new ResizeObserver(place).observe(viewer);
})();
