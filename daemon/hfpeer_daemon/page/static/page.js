// Keeps the page up to date, filters tables, and says how long ago a time was. Without it the page shows the same
// numbers, as of the moment when it was loaded.
"use strict";

const ago = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function showTimes(within) {
  for (const time of within.querySelectorAll("time")) {
    const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
    const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["minute", 60];
    time.title ||= time.textContent;
    time.textContent = ago.format(Math.trunc(seconds / length), unit);
  }
}

function filterRows(input) {
  const wanted = input.value.trim().toLowerCase();
  for (const row of document.querySelectorAll(`table[data-rows="${input.dataset.filter}"] > tbody > tr`)) {
    row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
  }
}

function show(fragment) {
  const place = document.querySelector(`[data-fragment="${fragment.name}"]`);
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const isOpen = place.querySelector("details")?.open;
  place.innerHTML = fragment.html;
  if (isOpen) place.querySelector("details")?.setAttribute("open", "");
  showTimes(place);
  document.querySelectorAll("input[data-filter]").forEach(filterRows);
  if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

for (const input of document.querySelectorAll("input[data-filter]")) {
  input.closest("label").hidden = false;
  input.addEventListener("input", () => filterRows(input));
}
showTimes(document);
setInterval(() => showTimes(document), 20000);

const address = document.getElementById("main").dataset.live;
const light = document.querySelector(".live");
let stream = null;

function say(isOn) {
  light.classList.toggle("off", !isOn);
  const text = isOn ? light.dataset.on : light.dataset.off;
  if (light.textContent !== text) light.textContent = text;
}

// A page that nobody sees asks for nothing.
function follow() {
  stream?.close();
  stream = null;
  if (document.hidden) return;
  stream = new EventSource(address);
  stream.onopen = () => say(true);
  stream.onerror = () => say(false);
  stream.onmessage = (event) => show(JSON.parse(event.data));
}

if (address) {
  document.addEventListener("visibilitychange", follow);
  follow();
}
