"""``edge-mdda doctor`` says when the service stands still, and when a release's time is over."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from edge_mdda.diagnostics.finding import FAILED, OK, WARNING
from edge_mdda.diagnostics.release import release
from edge_mdda.diagnostics.service import FIELDS, service
from edge_mdda.watch import service as watch

LOADED = {"LoadState": "loaded", "ActiveState": "active", "NRestarts": "0", "StatusText": "waiting for images"}


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch):
    """A ``systemctl`` that says what it is told to."""
    program = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def says(status: int = 0, **fields: str) -> None:
        lines = "".join(f"{name}={value}\n" for name, value in fields.items())
        asked = f"show edge-mdda-watch.service --property={','.join(FIELDS)}"
        check = f"#!/bin/sh\n[ \"$*\" = '{asked}' ] || exit 9\n"
        program.write_text(f"{check}/bin/cat <<'END'\n{lines}END\nexit {status}\n")
        program.chmod(0o755)

    return says


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, OK, "waiting for images"),
        ({"StatusText": "degraded: the model fails at every image (x)"}, FAILED, "degraded"),
        ({"StatusText": "no space: paused"}, WARNING, "no space"),
        ({"NRestarts": "4"}, WARNING, "started again 4 times"),
        ({"ActiveState": "failed", "StatusText": "", "NRestarts": "9"}, FAILED, "failed, started again 9 times"),
        (
            {"ActiveState": "activating", "StatusText": "", "NRestarts": "3"},
            FAILED,
            "activating, started again 3 times",
        ),
        ({"ActiveState": "activating", "StatusText": ""}, WARNING, "starting"),
        ({"ActiveState": "inactive", "StatusText": ""}, WARNING, "inactive"),
    ],
)
def test_what_the_service_says_of_itself(systemctl, fields, status, words):
    systemctl(**{**LOADED, **fields})
    (found,) = service()
    assert (found.name, found.status) == ("service", status)
    assert words in found.value
    assert bool(found.advice) == (status != OK)


def test_no_systemd_and_no_such_service_are_no_findings(systemctl, monkeypatch, tmp_path):
    systemctl(LoadState="not-found", ActiveState="inactive")
    assert service() == []
    systemctl(1, **LOADED)
    assert service() == []
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert service() == []


def test_the_words_are_those_that_watch_says():
    text = Path(watch.__file__).read_text()
    assert 'status(f"degraded: ' in text and 'status(f"no space: ' in text


@pytest.mark.parametrize(("days", "status"), [(2, OK), (-2, WARNING)])
def test_a_release_whose_time_is_over(tmp_path, monkeypatch, days, status):
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("EDGE_MDDA_MODELS", str(tmp_path / "models"))
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * 86_400))
    (tmp_path / "manifest.json").write_text(json.dumps({"version": "1", "expires": until}))
    found = {finding.name: finding for finding in release(tmp_path)}
    assert found["release valid"].status == status and until in found["release valid"].value
    for none in (None, 7, "soon"):
        (tmp_path / "manifest.json").write_text(json.dumps({"version": "1", "expires": none}))
        assert "release valid" not in {finding.name for finding in release(tmp_path)}
