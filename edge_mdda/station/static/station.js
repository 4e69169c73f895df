// The camera, the body map, dropped files and progress. Everything else works without this script.
"use strict";
const $ = (id) => document.getElementById(id);

// Body map: a shape chooses its radio button, and the chosen one is filled.
function markChosen() {
  const chosen = document.querySelector('input[name="site"]:checked');
  document.querySelectorAll(".site").forEach((shape) => {
    shape.classList.toggle("chosen", chosen !== null && shape.dataset.site === chosen.value);
  });
}
document.querySelectorAll(".site").forEach((shape) => {
  shape.addEventListener("click", () => {
    const radio = document.querySelector(`input[name="site"][value="${shape.dataset.site}"]`);
    radio.checked = true;
    radio.scrollIntoView({ block: "nearest" });
    markChosen();
  });
});
document.addEventListener("change", (event) => { if (event.target.name === "site") markChosen(); });
if ($("problems")) $("problems").focus();

// Every form: sent once.
document.querySelectorAll("form").forEach((form) => {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    if (form.id === "capture") $("progress").textContent = "Sending and judging: please wait.";
  });
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) { window.location.reload(); return; } // kept by the browser: is it still allowed to be seen?
  document.querySelectorAll("form").forEach((form) => { delete form.dataset.sent; });
});

// Files dropped on the form are chosen.
const drop = $("drop");
if (drop) {
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) $("pictures").files = event.dataTransfer.files;
  });
}
