// The colours that were chosen, before anything is painted: the only script that is not a module, as those wait for the document.
(function () {
  try {
    const chosen = localStorage.getItem("meshgw.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // storage may be forbidden; then the system's colours are used
  }
  document.documentElement.classList.add("scripted");
})();
