"""A short, repeatable run of ``python -m tests.fuzz``; and that it finds what there is to find."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("nacl")

import fuzz

from edge_mdda.errors import ImageError

EXAMPLES = 60


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_nothing_crashes_or_hangs(name, tmp_path, capfd):
    tried, good = fuzz.run_round(name, 1, EXAMPLES, tmp_path)
    assert good, capfd.readouterr()
    assert tried >= 0.9 * EXAMPLES
    assert not list(tmp_path.iterdir())


def harm(kind: str):
    def run(content: bytes, folder) -> None:
        if len(content) > 3:
            return
        if kind == "crash":
            import ctypes

            ctypes.string_at(0)
        if kind == "hang":
            while True:
                pass
        if kind == "memory":
            bytearray(fuzz.MEMORY)
        raise (ImageError if kind == "refused" else KeyError)("x")

    return run


@pytest.mark.parametrize("kind", ["crash", "hang", "memory", "error", "refused"])
def test_a_finding_is_kept(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(fuzz, "HANG_S", 0.5)
    target = fuzz.Target(lambda: [b"abcdef"], harm(kind), fuzz._image_errors)
    monkeypatch.setitem(fuzz.TARGETS, "made", target)
    _, good = fuzz.run_round("made", 1, 500, tmp_path)
    assert good == (kind == "refused"), capfd.readouterr()
    found = list(tmp_path.iterdir())
    assert len(found) == (kind != "refused")
    assert all(len(path.read_bytes()) <= 3 for path in found)
