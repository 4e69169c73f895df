"""Training, evaluation and quantisation on a small made-up data set, and on the real one where it is present."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mdda.errors import EdgeMddaError, ImageError
from edge_mdda.mdda.params import PRESETS
from edge_mdda.mdda.purifier import Purifier
from export.dataset import CLASSES, DatasetError, LabelledImages, decode_all, read_labels, read_split
from export.demo import draw
from export.options import TrainOptions
from export.train.augment import RandomPurifier, random_view

REPOSITORY = Path(__file__).parent.parent
TINY = TrainOptions(steps=4, batch=4, size=64, purify_share=0.5, seed=3)


def write_labels(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_splits_are_disjoint_and_decoded_in_order(made_up):
    train, val = (read_split(made_up, split) for split in ("train", "val"))
    assert len(train) == 28
    assert len(val) == 14
    assert not set(train.paths) & set(val.paths)
    assert train.class_counts().tolist() == [4] * 7
    images = decode_all(val, 64, 48)
    assert images.shape == (14, 64, 48, 3)
    middle = cv2.imread(str(val.paths[3]))[48, 48, ::-1].astype(int)
    assert np.abs(images[3, 32, 24].astype(int) - middle).max() < 12


def test_unusable_label_files_say_what_is_wrong(made_up, tmp_path):
    images = made_up / "images"
    cases = {
        "a,b\n1,2\n": "column",
        "image_id,dx\n": "column",
        "image_id,dx\nval_nv_0,wart\n": "unknown dx 'wart'",
        "image_id,dx\nnobody,nv\n": "no image for image_id 'nobody'",
    }
    for text, cause in cases.items():
        with pytest.raises(DatasetError, match=cause):
            read_labels(images, write_labels(tmp_path / "labels.csv", text))
    with pytest.raises(DatasetError, match="cannot read labels"):
        read_labels(images, tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="no such folder"):
        read_labels(tmp_path / "none", made_up / "labels.csv")
    with pytest.raises(DatasetError, match="no rows of split 'test'"):
        read_split(made_up, "test")


def test_a_damaged_training_image_is_named(made_up, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes((made_up / "images" / "val_nv_0.png").read_bytes()[:200])
    data = LabelledImages((bad,), np.array([0]), tuple(CLASSES), "bad")
    with pytest.raises(DatasetError, match=r"bad\.png: "):
        decode_all(data, 64, 64)


def test_the_fixed_split_of_the_real_data(data_folder):
    counts = {split: len(read_split(data_folder, split)) for split in ("train", "val", "test")}
    assert counts == {"train": 4190, "val": 897, "test": 897}
    sets = [set(read_split(data_folder, split).paths) for split in counts]
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_views_are_random_replayable_and_pixels():
    image = cv2.resize(draw(), (224, 224), interpolation=cv2.INTER_AREA)
    a, b, c = (random_view(image, 96, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (96, 96, 3)
    assert a.dtype == np.uint8
    assert np.abs(a.astype(int) - c).mean() > 1
    means = [random_view(image, 64, np.random.default_rng(s)).mean() for s in range(40)]
    assert abs(np.mean(means) - image.mean()) < 15  # colours vary about those of the picture


def test_the_random_purifier_touches_its_share():
    image = cv2.resize(draw(), (64, 64), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    purifier = RandomPurifier(0.5)
    touched = sum(not np.array_equal(purifier(image, rng), image) for _ in range(60))
    assert 18 <= touched <= 42
    assert all(np.array_equal(RandomPurifier(0.0)(image, rng), image) for _ in range(3))


def test_the_random_purifier_is_a_preset_s_but_for_its_strength(monkeypatch):
    seen = []

    class Recorder(Purifier):
        def __init__(self, height, width, params):
            seen.append(params)
            super().__init__(height, width, params)

    monkeypatch.setattr("edge_mdda.mdda.purifier.Purifier", Recorder)
    image = cv2.resize(draw(), (64, 64), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    for _ in range(40):
        RandomPurifier(1.0)(image, rng)
    shipped = {(params.scales, params.output_weights) for params in PRESETS.values()}
    assert {(params.scales, params.output_weights) for params in seen} == shipped
    assert {params.n_blocks for params in seen} == {1, 2, 3}
    assert all(2 <= params.sigma <= 8 for params in seen) and len({params.sigma for params in seen}) == 40


def test_options_name_the_bad_field():
    for field, value in {"steps": 0, "batch": 1, "size": 8, "lr": 0.0, "purify_share": 1.5, "ema": 1.0}.items():
        with pytest.raises(EdgeMddaError, match=f"^{field}: "):
            TrainOptions(**{field: value})


def test_training_learns_stores_and_resumes(made_up, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from export.train.fine_tune import train
    from export.train.network import load_checkpoint

    class KillError(Exception):
        pass

    def kill_at_two(step: int, *_: object) -> None:
        raise KillError

    whole = load_checkpoint(train(made_up, tmp_path / "whole", TINY, checkpoint_every=2))
    assert whole["step"] == TINY.steps
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == TINY.steps
    with pytest.raises(KillError):  # the last step reports before it stores, so two steps are stored
        train(made_up, tmp_path / "cut", TINY, checkpoint_every=2, progress=kill_at_two)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 2
    resumed = load_checkpoint(train(made_up, tmp_path / "cut", TINY, checkpoint_every=2))
    changed = 0
    for name, value in whole["ema"].items():
        np.testing.assert_allclose(resumed["ema"][name].numpy(), value.numpy(), atol=1e-4, err_msg=name)
        changed += not np.array_equal(whole["network"][name].numpy(), value.numpy())
    assert changed > 100  # the average is no copy of the network
    with pytest.raises(EdgeMddaError, match="made with other options"):
        train(made_up, tmp_path / "cut", TrainOptions(steps=5, batch=4, size=64), checkpoint_every=2)
    monkeypatch.setitem(PRESETS, "mild", PRESETS["strong"])  # the views would be others
    with pytest.raises(EdgeMddaError, match="made with other options"):
        train(made_up, tmp_path / "cut", TINY, checkpoint_every=2)


def test_a_damaged_or_foreign_checkpoint_is_refused(made_up, tmp_path):
    torch = pytest.importorskip("torch")
    from export.train.network import CheckpointError, network_from_checkpoint

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        network_from_checkpoint(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        network_from_checkpoint(path)
    torch.save({"format": 1, "labels": list(CLASSES), "ema": {"x": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="do not fit"):
        network_from_checkpoint(path)


def test_quantise_is_convert_with_wide_gates(made_up, tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from export.__main__ import main
    from export.train.fine_tune import train

    checkpoint = train(made_up, tmp_path, TrainOptions(steps=1, batch=4, size=64, purify_share=0.0))
    out = tmp_path / "out" / "model.onnx"
    assert main(["quantise", str(checkpoint), "--data", str(made_up), "--out", str(out)]) == 1
    assert "no rows of split 'test'" in capsys.readouterr().err  # convert judges by them, and quantise never did
    assert not out.parent.exists()


def test_the_float_export_equals_the_checkpoint(made_up, tmp_path):
    pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    from export.convert.graphs import PIXELS, with_pixels
    from export.convert.sources import SourceOptions, open_source
    from export.dataset import SIDE
    from export.evaluate import TorchClassifier
    from export.train.fine_tune import train

    checkpoint = train(made_up, tmp_path, TrainOptions(steps=2, batch=4, size=64, purify_share=0.0))
    model = with_pixels(open_source(str(checkpoint), SourceOptions()).core)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = decode_all(read_split(made_up, "val"), SIDE, SIDE)[:3]
    logits = np.concatenate([session.run(None, {PIXELS: image[None]})[0] for image in batch])
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    expected = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(TorchClassifier(checkpoint).predict(batch), expected, atol=1e-4)


def test_evaluate_command_on_another_set(made_up, tmp_path):
    labels = write_labels(
        tmp_path / "some.csv", "image_id,dx\nval_nv_0,nv\nval_mel_0,mel\nval_mel_1,mel\nval_bcc_0,bcc\n"
    )
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "export", "evaluate", "--images", made_up / "images", "--labels", labels,
               "--purify", "both", "--json", out]  # fmt: skip
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    content = json.loads(out.read_text())
    assert content["n"] == 4
    assert content["purify"] == "on"
    assert set(content["modes"]) == {"off", "on"}
    assert content["recall_vasc"] is None
    assert 0 <= content["melanoma_recall"] <= 1
    assert content["balanced_accuracy"] == content["modes"]["on"]["balanced_accuracy"]
    assert "| balanced accuracy |" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--images", "nowhere"],
        ["evaluate", "--images", "nowhere", "--labels", "nothing.csv"],
        ["evaluate", "--data", "nowhere"],
        ["evaluate", "--model", "none.onnx"],
        ["quantise", "none.pt", "--data", "nowhere"],
        ["train", "--out", "x", "--steps", "0"],
        ["demo", "--out", "no/folder/demo.jpg"],
    ],
)
def test_wrong_input_is_one_line(arguments, tmp_path):
    pytest.importorskip("torch")
    result = subprocess.run(
        [sys.executable, "-m", "export", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
    )
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_built_in_model_reaches_its_card(data_folder):
    """The card's promise for the whole test split, judged on a part of it with the slack that its size needs."""
    from export.evaluate import evaluate, open_any

    data = read_split(data_folder, "test")
    chosen = np.concatenate([np.flatnonzero(data.targets == c)[:25] for c in range(7)])
    part = LabelledImages(tuple(data.paths[i] for i in chosen), data.targets[chosen], data.labels, "part")
    result = evaluate(open_any(None), part, "on")
    assert result["balanced_accuracy"] > 0.62
    assert result["malignant_auroc"] > 0.80


def test_the_demo_picture_is_what_the_code_draws():
    from edge_mdda.models import DEMO_IMAGE
    from edge_mdda.picture.decode import decode

    assert DEMO_IMAGE.stat().st_size < 200_000
    stored = decode(DEMO_IMAGE.read_bytes())
    assert np.abs(stored.astype(int) - draw()).mean() < 3  # JPEG loss only


def test_image_errors_are_the_projects_own():
    assert issubclass(ImageError, EdgeMddaError)


def test_quantise_never_writes_over_the_shipped_model_by_default():
    from export.__main__ import build_parser

    assert build_parser().parse_args(["quantise", "checkpoint.pt"]).out.parent == Path()
