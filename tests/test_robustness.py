"""The robustness benchmark: a twin that is the shipped file, a cache that mixes nothing up, rows, report, command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("torchattacks")

from tiny_attacked import EPS  # noqa: E402

from benchmarks.robustness import adaptive, images, networks, pipeline, sets  # noqa: E402
from benchmarks.robustness.__main__ import main  # noqa: E402
from benchmarks.robustness.attacks import to_tensor  # noqa: E402
from benchmarks.robustness.cache import Cache, hash_code, key_of, load_images, seed_of, versions_of  # noqa: E402
from benchmarks.robustness.defences import DEFENCES  # noqa: E402
from benchmarks.robustness.errors import RobustnessError  # noqa: E402
from benchmarks.robustness.networks import Twin  # noqa: E402
from benchmarks.robustness.run import Options, Run  # noqa: E402
from benchmarks.robustness.sets import Maker  # noqa: E402
from benchmarks.robustness.squeezenet import SqueezeNet  # noqa: E402
from benchmarks.robustness.surrogate_file import save_surrogate  # noqa: E402
from edge_mdda.classifier import built_in, open_classifier  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {"network", "attack", "eps", "threat_model", "defence", "balanced_accuracy", "melanoma_recall", "ms"}


pytestmark = pytest.mark.usefixtures("one_torch_thread")


# -- networks -----------------------------------------------------------------------------------------------


def test_twin_agrees_with_the_shipped_file(drawn_image):
    rng = np.random.default_rng(0)
    pictures = [drawn_image, drawn_image[::-1], 255 - drawn_image, np.roll(drawn_image, 60, axis=0)]
    pictures += [np.clip(drawn_image + rng.normal(0, 25, drawn_image.shape), 0, 255).astype(np.uint8)]
    batch = np.stack(pictures)
    classifier = open_classifier()
    expected = classifier.predict(batch)
    with torch.no_grad():
        logits = Twin(built_in())(to_tensor(batch))
    found = torch.softmax(logits / classifier.manifest.temperature, 1).numpy()
    assert np.abs(found - expected).max() < 0.06  # activations are not rounded in the twin
    assert expected.argmax(1).tolist() == found.argmax(1).tolist()
    assert np.ptp(expected, axis=0).max() > 0.2  # the pictures differ, so agreement means something


def test_twin_has_a_gradient_with_respect_to_pixels(drawn_image):
    pixels = to_tensor(drawn_image[None]).requires_grad_(True)
    logits = Twin(built_in())(pixels)
    gradient = torch.autograd.grad(logits[0, 4] - logits[0, 5], pixels)[0]
    with torch.no_grad():
        moved = Twin(built_in())(pixels + 0.25 * gradient.sign())
    assert moved[0, 4] - moved[0, 5] > logits[0, 4] - logits[0, 5] + 0.1


# -- cache --------------------------------------------------------------------------------------------------


def test_key_depends_on_every_part_and_on_nothing_else():
    values = {"images": np.arange(12, dtype=np.uint8).reshape(3, 4), "parameters": {"eps": 2.0, "steps": 10}}
    same = {"parameters": {"steps": 10, "eps": 2.0}, "images": np.arange(12, dtype=np.uint8).reshape(3, 4)[:, :]}
    key = key_of(**values)
    assert key == key_of(**same)
    assert key != key_of(**(values | {"parameters": {"eps": 4.0, "steps": 10}}))
    assert key != key_of(**(values | {"images": values["images"] + 1}))
    assert key != key_of(**(values | {"images": values["images"].reshape(4, 3)}))
    assert key != key_of(**values, code="x")
    assert seed_of(key) == seed_of(key) < 2**48


def test_code_hash_ignores_comments_and_sees_code(tmp_path):
    texts = ['"""Doc."""\nx = 1\n', '"""Other."""\n\nx = 1  # why\n', '"""Doc."""\nx = 2\n']
    hashes = []
    for n, text in enumerate(texts):
        (tmp_path / str(n)).mkdir()
        path = tmp_path / str(n) / "code.py"
        path.write_text(text)
        hashes.append(hash_code((path,)))
    assert hashes[0] == hashes[1] != hashes[2]


def test_second_making_of_a_set_is_read_and_equal(tiny, photos, tmp_path):
    first = Maker(Cache(tmp_path), batch=8).on_gradient("pgd10", tiny, "network", photos, EPS)
    store = Cache(tmp_path)
    second = Maker(store, batch=8).on_gradient("pgd10", tiny, "network", photos, EPS)
    assert np.array_equal(first.images, second.images)
    assert (store.hits, store.misses) == (3, 0)
    assert first.keys == second.keys
    assert np.array_equal(load_images(tmp_path, second.keys, photos.images), first.images)
    for changed in (
        lambda maker: maker.on_gradient("pgd10", tiny, "network", photos, EPS - 1),
        lambda maker: maker.on_gradient("pgd10", tiny, "another", photos, EPS),
        lambda maker: maker.on_gradient("fgsm", tiny, "network", photos, EPS),
    ):
        store = Cache(tmp_path)
        changed(Maker(store, batch=8))
        assert (store.hits, store.misses) == (0, 3)
    store = Cache(tmp_path)
    Maker(store, seed=1, batch=8).on_gradient("pgd10", tiny, "network", photos, EPS)
    assert store.misses == 3


def test_key_depends_on_the_code_of_the_gradient_and_on_packages(tiny, photos, tmp_path, monkeypatch):
    assert {path.name for path in sets.SHARED} >= {"networks.py", "rebuild.py", "graphs.py", "fake_quant.py", "sets.py"}
    few = photos.first(1)

    def keys() -> list[str]:
        return Maker(Cache(tmp_path), batch=8).on_gradient("fgsm", tiny, "network", few, EPS).keys

    found = [keys()]
    changed = tmp_path / "networks.py"
    changed.write_text((ROOT / "benchmarks" / "robustness" / "networks.py").read_text() + "\nX = 1\n")
    with monkeypatch.context() as patch:
        patch.setattr(sets, "SHARED", tuple(changed if p.name == "networks.py" else p for p in sets.SHARED))
        found.append(keys())
    for package in ("torch", "torchattacks"):
        with monkeypatch.context() as patch:
            patch.setattr(sets, "versions_of", lambda *names, p=package: versions_of(*names) | {p: "0.0"})
            found.append(keys())
    assert len({key for one in found for key in one}) == len(found)
    assert keys() == found[0]


def test_verdicts_depend_on_the_packages_of_the_defences(monkeypatch):
    here = pipeline.describe(DEFENCES["median"])
    assert {"torch", "scikit-image", "PyWavelets"} <= set(here["versions"])
    assert here["versions"]["opencv-python-headless"] or here["versions"]["opencv-python"]
    assert torch.__version__.startswith(here["versions"]["torch"])
    monkeypatch.setattr(pipeline, "versions_of", lambda *names: versions_of(*names) | {"PyWavelets": "0.0"})
    assert key_of(defence=pipeline.describe(DEFENCES["median"])) != key_of(defence=here)


def test_damaged_cache_file_is_made_again(tiny, photos, tmp_path):
    made = Maker(Cache(tmp_path), batch=8).on_gradient("fgsm", tiny, "network", photos, EPS)
    path = Cache(tmp_path).path(made.keys[1])
    path.write_bytes(path.read_bytes()[:100])
    assert load_images(tmp_path, made.keys, photos.images) is None
    store = Cache(tmp_path)
    again = Maker(store, batch=8).on_gradient("fgsm", tiny, "network", photos, EPS)
    assert (store.hits, store.misses) == (2, 1)
    assert np.array_equal(made.images, again.images)


def test_interrupted_set_goes_on_with_the_batches_that_are_there(tiny, photos, tmp_path):
    whole = Maker(Cache(tmp_path / "whole"), batch=8).on_gradient("difgsm", tiny, "network", photos, EPS)
    steps = []

    def stop() -> None:
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Maker(Cache(tmp_path / "cut"), step=stop, batch=8).on_gradient("difgsm", tiny, "network", photos, EPS)
    store = Cache(tmp_path / "cut")
    resumed = Maker(store, batch=8).on_gradient("difgsm", tiny, "network", photos, EPS)
    assert (store.hits, store.misses) == (2, 1)
    assert np.array_equal(resumed.images, whole.images)


# -- the command --------------------------------------------------------------------------------------------


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.robustness", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def test_end_to_end_on_photographs(data_folder, tmp_path):
    options = ("--quick", "--attacks", "fgsm", "--images", 1, "--model", "standard", "--cache", tmp_path / "cache")
    options += ("--defences", "none,mdda_balanced", "--data", data_folder)
    done = run(*options, "--json", tmp_path / "one.json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    content = json.loads((tmp_path / "one.json").read_text())
    rows = content["rows"]
    assert [(r["attack"], r["eps"], r["defence"]) for r in rows] == [
        ("clean", 0, "none"),
        ("clean", 0, "mdda_balanced"),
        ("fgsm", 4, "none"),
        ("fgsm", 4, "mdda_balanced"),
    ]
    for row in rows:
        assert set(row) >= COLUMNS
        assert row["threat_model"] == "gray"
        assert row["network"] == "standard"
        assert row["n"] == 7
        assert 0 <= row["balanced_accuracy_ci"][0] <= row["balanced_accuracy"] <= row["balanced_accuracy_ci"][1] <= 1
        assert row["ms"] >= 0
    assert [r["set"] for r in rows[1:3]] == ["standard/gray/clean/standard/n7/0", "standard/gray/fgsm/standard/n7/4"]
    assert rows[2]["balanced_accuracy"] < rows[0]["balanced_accuracy"]
    assert content["networks"]["standard"]["sha256"] == open_classifier().manifest.sha256
    assert content["attacks"]["gray/fgsm"] == {"eps": 4.0, "loss": "cross entropy"}
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert "Gray-box" in text
    assert "| gray/fgsm | eps: 4; loss: cross entropy |" in text
    assert "| gray/fgsm | eps: 4; loss: cross entropy |" in done.stdout
    assert "never a diagnosis" in text
    files = sorted((tmp_path / "cache").rglob("*.npz"))
    assert files
    before = {path: path.stat().st_mtime_ns for path in files}
    photos = images.read(data_folder, "test", 1)
    attacked = load_images(tmp_path / "cache", content["sets"][rows[2]["set"]]["files"], photos.images)
    assert np.abs(attacked.astype(int) - photos.images).max() == 4
    again = run(*options, "--json", tmp_path / "two.json")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "cache").rglob("*.npz"))} == before
    figures = [{k: v for k, v in row.items() if k != "ms"} for row in rows]
    second = json.loads((tmp_path / "two.json").read_text())["rows"]
    assert [{k: v for k, v in row.items() if k != "ms"} for row in second] == figures


def test_interrupt_is_one_line_and_leaves_no_report(data_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.robustness",
        "--attacks",
        "pgd50",
        "--threat-model",
        "gray",
        "--images",
        "9",
    ]
    command += ["--data", str(data_folder), "--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "out.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # the head of the table: the work has begun
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=300)
    assert child.returncode == 130
    assert "interrupted" in errors.decode().strip().splitlines()[-1]
    assert "Traceback" not in errors.decode()
    assert not (tmp_path / "out.json").exists()


def test_defence_without_its_weights_is_left_out_unless_it_was_asked_for(data_folder, tmp_path, monkeypatch, capsys):
    from benchmarks.robustness import defences

    def broken():
        raise RobustnessError("no weights here")

    found = {"none": defences.DEFENCES["none"], "lost": defences.Defence("lost", "lost", "-", broken)}
    monkeypatch.setattr(defences, "DEFENCES", found)
    chosen = {"data": data_folder, "models": ("standard",), "quick": True, "attacks": ("fgsm",), "eps": None}
    chosen |= {"threat_model": None, "images": 1, "seed": 0, "threads": 1, "device": "cpu", "cache": tmp_path}
    assert list(Run(Options(**chosen, defences=None)).defences) == ["none"]
    assert capsys.readouterr().err.strip() == "robustness: the defence 'lost' is left out: no weights here"
    with pytest.raises(RobustnessError, match="no weights"):
        Run(Options(**chosen, defences=("lost",)))


def test_the_other_attackers_have_rows(data_folder, tmp_path, monkeypatch):
    """Transfer from every surrogate that lies there, through the defence, and by scores."""
    torch.manual_seed(0)
    monkeypatch.setattr(networks, "SURROGATES", tmp_path)
    save_surrogate(tmp_path / "squeezenet1_1.weights.xz", SqueezeNet(7), "squeezenet1_1", "abcdefg", 4)
    run = Run(
        Options(
            data=data_folder,
            models=("standard",),
            quick=True,
            attacks=("difgsm", "pgd50", "pgd50smooth", "square"),
            eps=(2.0,),
            threat_model=("transfer", "adaptive", "black"),
            defences=("none",),
            images=1,
            seed=0,
            threads=1,
            device="cpu",
            cache=tmp_path / "cache",
        )
    )
    rows = list(run.rows())
    assert run.progress.done == run.progress.total
    found = {
        (row["threat_model"], row["attack"], row["source_model"]): row
        for row in rows
        if row["source_model"] != "hardened"
    }
    assert set(found) == {
        ("gray", "clean", "standard"),
        ("transfer", "difgsm", "squeezenet1_1"),
        ("adaptive", "pgd50", "standard"),
        ("adaptive", "pgd50smooth", "standard"),
        ("black", "square", "standard"),
    }
    assert {row["eps"] for key, row in found.items() if key[1] != "clean"} == {2.0}
    clean, through = found["gray", "clean", "standard"], found["adaptive", "pgd50", "standard"]
    assert through["balanced_accuracy"] < clean["balanced_accuracy"] - 0.4
    for name, sigma in adaptive.STAND_INS.items():
        assert run.parameters[f"adaptive/{name}, defence without noise"][2.0]["backward_sigma"] == sigma
    made = [run.sets[row["set"]]["files"] for row in rows if row["threat_model"] == "adaptive"]
    assert made[0] != made[1], "each stand-in has its own pictures"
    assert run.parameters["black/square, defence without noise"][2.0]["queries"] >= 50


def test_missing_data_is_one_line(tmp_path, capsys):
    assert main(["--quick", "--data", str(tmp_path), "--model", "standard", "--cache", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "no data set here" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("--attacks", "nonsense"),
        ("--eps", "0"),
        ("--eps", "1.5"),
        ("--images", "0"),
        ("--knows", "all"),
        ("--defences", "prayer"),
        ("--threads", "x"),
        ("--json", "no/such/folder/out.json"),
        ("--out", "pyproject.toml/report"),
    ],
)
def test_wrong_usage(arguments, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as caught:
        main(["--quick", "--model", "standard", *arguments])
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_model_that_is_not_there_is_named(monkeypatch, tmp_path, data_folder, capsys):
    monkeypatch.setitem(networks.MODELS, "hardened", tmp_path / "gone.onnx")
    arguments = ["--quick", "--model", "hardened", "--images", "1", "--data", str(data_folder)]
    assert main([*arguments, "--cache", str(tmp_path)]) == 1
    assert "gone.onnx" in capsys.readouterr().err
