"""``edge-mdda serve demo-visit``: all files or none, one line where something is missing, and a light ``screen``."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("reportlab", reason="the extra report is not installed")
pytest.importorskip("segno", reason="the extra report is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from station_visits import drawn_visit

from edge_mdda import NOTICE
from edge_mdda.cli.serve_visit import NEEDS
from edge_mdda.errors import StationError
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.station.hand_on import write

ROOT = Path(__file__).resolve().parents[1]
FILES = ["report.pdf", "image.dcm", "result.dcm", "report.dcm", "visit.fhir.json"]
BLOCKED = """
import sys
from importlib.abc import MetaPathFinder
class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(name)
import importlib.util
there = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == sys.argv[1] else there(name, package)
sys.meta_path.insert(0, Blocker())
from edge_mdda.cli.main import main
sys.exit(main(["serve", "demo-visit", sys.argv[2]]))
"""
LOADED = """
import sys
from edge_mdda.cli.main import main
status = main(["screen", sys.argv[1]])
roots = {name.partition(".")[0] for name in sys.modules}
print(sorted(roots & {"pydicom", "highdicom", "reportlab", "segno", "starlette"}), "onnxruntime" in roots, status)
"""


def demo_visit(out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_mdda", "serve", "demo-visit", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_all_files_are_written_and_nothing_else(tmp_path):
    out = tmp_path / "deep" / "out"
    for _ in range(2):  # an earlier visit gives way
        done = demo_visit(out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(out / name) for name in FILES]
        assert NOTICE in done.stderr
        assert sorted(os.listdir(out)) == sorted(FILES)
        assert os.listdir(out.parent) == ["out"]
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF-")
    bundle = json.loads((out / "visit.fhir.json").read_text("utf-8"))
    assert len(bundle["entry"]) == 6


def test_the_picture_that_goes_out_is_judged_alike_when_it_comes_back(tmp_path):
    assert demo_visit(tmp_path).returncode == 0
    command = [sys.executable, "-m", "edge_mdda", "screen", str(tmp_path / "image.dcm"), "--seed", "21", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    back, here = json.loads(done.stdout), drawn_visit().answer
    for key in ("probabilities", "raw_probabilities", "advice", "rule", "size"):
        assert back[key] == here[key], key
    assert back["patient"] == "D-001"


def test_a_file_in_the_way_is_left_alone(tmp_path):
    out = tmp_path / "out"
    out.write_text("mine", encoding="utf-8")
    assert "not a folder" in one_line(demo_visit(out))
    assert out.read_text("utf-8") == "mine"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be made" in one_line(demo_visit(tmp_path / "file" / "out"))
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_replaced_leaves_no_scratch(tmp_path):
    out = tmp_path / "out"
    (out / "report.pdf" / "inner").mkdir(parents=True)
    assert "cannot be written" in one_line(demo_visit(out))
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["report.pdf"]


def test_what_the_child_refuses_leaves_nothing_behind(tmp_path):
    visit = drawn_visit()
    numbered = dataclasses.replace(visit, patient=dataclasses.replace(visit.patient, own_id="D\\1"))
    with pytest.raises(StationError, match="patient's number"):
        write(numbered, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_without_the_extra_dicom_the_rest_is_written(tmp_path):
    paths = write(drawn_visit(), tmp_path / "out", dicom=False)
    assert [path.name for path in paths] == ["report.pdf", "visit.fhir.json"] == sorted(os.listdir(tmp_path / "out"))


@pytest.mark.parametrize(("extra", "module"), [(extra, name) for extra, names in NEEDS.items() for name in names])
def test_a_missing_package_is_one_line_and_nothing_is_written(tmp_path, extra, module):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, module, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    line = one_line(done)
    assert f"{module} not installed: pip install 'edge-mdda[{extra}]'" in line
    assert os.listdir(tmp_path) == []


def test_screening_loads_none_of_it():
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(DEMO_IMAGE)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[] True 0", done
