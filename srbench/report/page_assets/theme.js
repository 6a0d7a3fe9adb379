// Before the first paint, so that a chosen theme doesn't flash.
"use strict";
(() => {
  const root = document.documentElement;
  let theme = "auto";
  try { theme = localStorage.getItem("srbench-theme") || "auto"; } catch { /* a browser may forbid it on file: */ }
  const set = (value) => {
    theme = value;
    if (value === "auto") delete root.dataset.theme; else root.dataset.theme = value;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${value}`;
  };
  set(theme);
  document.addEventListener("DOMContentLoaded", () => {
    set(theme);
    document.getElementById("theme").addEventListener("click", () => {
      const order = ["auto", "light", "dark"];
      set(order[(order.indexOf(theme) + 1) % 3]);
      try { localStorage.setItem("srbench-theme", theme); } catch { /* then for this visit only */ }
    });
  });
})();
