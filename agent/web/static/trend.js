// The page Trend: the slider moves the line and asks what that threshold would have said. Without this the form asks.
"use strict";
(() => {
  const form = document.getElementById("what-if");
  const number = document.getElementById("threshold");
  const slider = document.getElementById("slider");
  const answer = document.getElementById("answer");
  const drawing = document.getElementById("scores");
  const line = document.getElementById("other");
  const spread = document.getElementById("spread-at");
  let timer = 0;
  let asking = null;

  const move = (value) => {
    if (!line) return;
    const share = Math.min(1, Math.max(0, value / Number(drawing.dataset.top)));
    line.setAttribute("d", `M0 ${(200 - share * 200).toFixed(2)}H1000`);
    // Bins of pixels are not of one width: there the line in the histogram follows with the next page.
    if (spread && Number(drawing.dataset.top) === 1) spread.setAttribute("d", `M${(share * 1000).toFixed(2)} 0V200`);
  };

  const ask = async () => {
    if (!number.checkValidity()) return;
    if (asking) asking.abort();
    asking = new AbortController();
    const query = new URLSearchParams(new FormData(form));
    try {
      const found = await fetch(`/trend/what-if?${query}`, { signal: asking.signal, headers: { accept: "text/html" } });
      if (found.ok) answer.innerHTML = await found.text(); // the server has escaped it
      else form.submit(); // the whole page says what is wrong
    } catch (error) {
      if (error.name !== "AbortError") form.submit();
    }
  };

  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 150);
  };

  document.getElementById("slide").hidden = false;
  slider.addEventListener("input", () => {
    number.value = slider.value;
    move(Number(slider.value));
    soon();
  });
  number.addEventListener("input", () => {
    slider.value = number.value;
    move(Number(number.value));
    soon();
  });
  document.getElementById("last").addEventListener("change", soon);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
})();
