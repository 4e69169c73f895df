// The live view of the board's own camera: the checks' verdict, and the space bar.
"use strict";
(() => {
  const LOOK_MS = 700; // between two questions
  const form = document.getElementById("board-shot");
  const verdict = document.getElementById("verdict");
  const view = document.getElementById("view");
  let lost = false;
  let pressed = null;
  async function look() {
    for (;;) {
      let said = { ok: false, says: "the station does not answer" };
      try {
        const answer = await fetch("/camera/state", { signal: AbortSignal.timeout(10000) });
        if (answer.ok) said = await answer.json();
        if (said.pressed !== undefined) {
          if (pressed !== null && said.pressed > pressed) { form.requestSubmit(); return; } // the camera's own button
          pressed = said.pressed;
        }
      } catch (error) { /* said already tells */ }
      if (said.says) {
        verdict.textContent = (said.ok ? "✓ " : "! ") + said.says;
        verdict.className = said.ok ? "good" : "bad";
      }
      await new Promise((done) => setTimeout(done, LOOK_MS));
      if (view.complete && lost) { view.src = "/camera/live?" + Date.now(); lost = false; }
    }
  }
  view.addEventListener("error", () => { lost = true; });
  document.addEventListener("keydown", (event) => {
    const busy = ["INPUT", "BUTTON", "A"].includes(document.activeElement.tagName);
    if (event.key === " " && !busy && !event.repeat) { event.preventDefault(); form.requestSubmit(); }
  });
  form.querySelector("button").focus();
  look();
})();
