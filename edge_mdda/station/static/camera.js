// The browser's camera: a live view with the checks' verdict, and shots that join the form's files.
"use strict";
(() => {
  const LOOK_MS = 700; // between two looks at the live view
  const LOOK_SIDE = 448; // pixels, twice what the network sees
  const form = document.getElementById("capture");
  if (!form || !navigator.mediaDevices || !navigator.mediaDevices.getUserMedia) return;
  const part = (id) => document.getElementById(id);
  const video = part("video");
  const files = part("pictures");
  const csrf = form.elements.csrf.value;
  const PROBLEMS = {
    NotAllowedError: "The browser may not use the camera: allow it beside the address, then try again.",
    NotFoundError: "There is no camera: plug it in, then try again. A file can be chosen below.",
    NotReadableError: "The camera is busy or does not answer: close other programs that use it, or plug it in again.",
    OverconstrainedError: "This camera is gone: choose another.",
  };
  let stream = null;
  let shots = [];
  part("camera").hidden = false;

  function tell(problem) { part("camera-problem").textContent = problem; }

  function off() {
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null;
    video.srcObject = null;
    part("live").hidden = true;
    part("camera-on").hidden = false;
  }

  async function on(deviceId) {
    off();
    tell("");
    const size = { width: { ideal: 1920 }, height: { ideal: 1440 } };
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: { ideal: "environment" } };
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...size, ...which } });
    } catch (error) {
      tell(PROBLEMS[error.name] || "The camera cannot be used (" + error.name + "): a file can be chosen below.");
      return;
    }
    const track = stream.getVideoTracks()[0];
    track.addEventListener("ended", () => {
      off();
      tell("The camera was unplugged or turned off: plug it in, then use it again. Nothing taken is lost.");
    });
    video.srcObject = stream;
    part("live").hidden = false;
    part("camera-on").hidden = true;
    await video.play();
    part("shot").focus();
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "videoinput");
    part("device").replaceChildren(...cameras.map((camera, k) => {
      const own = camera.deviceId === track.getSettings().deviceId;
      return new Option(camera.label || "Camera " + (k + 1), camera.deviceId, own, own);
    }));
    part("camera-choice").hidden = cameras.length < 2;
    look(track);
  }

  function still(kind, quality, side) {
    const scale = Math.min(1, side / Math.min(video.videoWidth, video.videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, kind, quality));
  }

  async function look(track) {
    while (stream && stream.getVideoTracks()[0] === track) {
      if (video.videoWidth && !document.hidden) {
        const body = new FormData();
        body.append("csrf", csrf);
        body.append("frame", await still("image/jpeg", 0.95, LOOK_SIDE), "frame.jpg");
        try {
          const answer = await fetch("/look", { method: "POST", body, signal: AbortSignal.timeout(10000) });
          const said = answer.ok ? await answer.json() : { ok: false, says: "the live check does not answer" };
          if (said.says) {
            part("verdict").textContent = (said.ok ? "✓ " : "! ") + said.says;
            part("verdict").className = said.ok ? "good" : "bad";
          }
        } catch (error) {
          part("verdict").textContent = "! the station does not answer; a picture can be taken all the same";
          part("verdict").className = "bad";
        }
      }
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
  }

  // The camera's own file where the browser hands it over; else every pixel of the frame, without loss.
  async function shoot() {
    if (!stream || !video.videoWidth) return;
    part("shot").disabled = true;
    let blob = null;
    try {
      if (window.ImageCapture) blob = await new ImageCapture(stream.getVideoTracks()[0]).takePhoto();
    } catch (error) {
      blob = null;
    }
    if (!blob || blob.size === 0 || !["image/jpeg", "image/png"].includes(blob.type)) {
      blob = await still("image/png", undefined, Infinity);
    }
    part("shot").disabled = false;
    if (!blob) { tell("The picture could not be taken: try again."); return; }
    shots.push(new File([blob], "shot." + (blob.type === "image/png" ? "png" : "jpg"), { type: blob.type }));
    show();
    part("send").focus();
  }

  function show() {
    const all = new DataTransfer();
    shots.forEach((shot) => all.items.add(shot));
    files.files = all.files;
    form.elements.source.value = shots.length ? "browser" : "file";
    part("shots").replaceChildren(...shots.map((shot, k) => {
      const item = document.createElement("li");
      const image = new Image();
      image.alt = "Picture " + (k + 1);
      image.src = URL.createObjectURL(shot);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src));
      const away = document.createElement("button");
      away.type = "button";
      away.textContent = "Leave picture " + (k + 1) + " away";
      away.addEventListener("click", () => { shots.splice(k, 1); show(); part("shot").focus(); });
      item.append(image, away);
      return item;
    }));
  }

  part("camera-on").addEventListener("click", () => on(""));
  part("camera-off").addEventListener("click", () => { off(); part("camera-on").focus(); });
  part("device").addEventListener("change", (event) => on(event.target.value));
  part("shot").addEventListener("click", shoot);
  files.addEventListener("change", () => { shots = []; form.elements.source.value = "file"; part("shots").replaceChildren(); });
  document.addEventListener("keydown", (event) => {
    const busy = ["INPUT", "SELECT", "TEXTAREA", "BUTTON", "SUMMARY", "A"].includes(document.activeElement.tagName);
    if (event.key === " " && stream && !busy && !event.repeat) { event.preventDefault(); shoot(); }
  });
  window.addEventListener("pagehide", off);
})();
