// Light or dark: what the system prefers, until somebody switches. A plain script in the head, so that no page flashes.

const KEY = "tracemill-theme";
const prefers = matchMedia("(prefers-color-scheme: dark)");

const apply = () => { document.documentElement.dataset.theme = localStorage.getItem(KEY) ?? (prefers.matches ? "dark" : "light"); };

prefers.addEventListener("change", apply);
apply();

// Every element with data-switch-theme switches; the choice is kept, and forgotten where it is what the system prefers.
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-switch-theme]")) return;
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  if ((next === "dark") === prefers.matches) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
  apply();
});
