"""What ``edge-mdda doctor`` says of the service that screens what appears in a folder, as systemd knows it."""

from __future__ import annotations

import subprocess

from edge_mdda.diagnostics.finding import FAILED, OK, WARNING, Finding

UNIT = "edge-mdda-watch.service"
PATIENCE_S = 5.0  # systemd answers in milliseconds, or not at all
FIELDS = ("LoadState", "ActiveState", "StatusText", "NRestarts")
LOOK = "journalctl -u edge-mdda-watch -n 20"
TROUBLE = {
    "degraded": "the model fails: edge-mdda selftest, then sudo edge-mdda-install rollback; no image is lost",
    "no space": "free some space; it goes on by itself, and no image is lost",
}
"""How the status text of :mod:`edge_mdda.watch.service` begins, and what to do then."""


def service() -> list[Finding]:
    """The service's state; empty where there is no systemd, or no such service."""
    command = ["systemctl", "show", UNIT, f"--property={','.join(FIELDS)}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, errors="replace", check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode or found.get("LoadState") != "loaded":
        return []
    state, text = found.get("ActiveState", "unknown"), found.get("StatusText", "")
    for beginning, advice in TROUBLE.items():
        if text.startswith(beginning):
            return [Finding("service", FAILED if beginning == "degraded" else WARNING, text, advice)]
    restarts = found.get("NRestarts", "0")
    if state == "active":
        again = f", started again {restarts} times" if restarts not in ("", "0") else ""
        return [Finding("service", WARNING if again else OK, f"{text or state}{again}", LOOK if again else "")]
    if state == "activating" and restarts in ("", "0"):
        return [Finding("service", WARNING, "starting", "ask again in a minute")]
    if state in ("failed", "activating"):
        return [Finding("service", FAILED, f"{state}, started again {restarts} times", LOOK)]
    return [Finding("service", WARNING, state, "sudo systemctl enable --now edge-mdda-watch")]
