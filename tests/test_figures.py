"""The figures show what is in the JSON; they are small PNG files, and photographs stay out of the repository."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchmarks.robustness import figure_data, figures, strips
from benchmarks.robustness.errors import RobustnessError

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
PNG = b"\x89PNG\r\n\x1a\n"


def row(threat_model: str, attack: str, eps: float, defence: str, value: float, **more) -> dict:
    confusion = (np.eye(7, dtype=int) * round(20 * value) + 1).tolist()
    return {
        "network": "standard",
        "threat_model": threat_model,
        "attack": attack,
        "source_model": "standard",
        "eps": eps,
        "defence": defence,
        "n": 140,
        "balanced_accuracy": value,
        "balanced_accuracy_ci": [value - 0.05, value + 0.05],
        "confusion": confusion,
    } | more


@pytest.fixture(scope="module")
def content() -> dict:
    """What a run, a tuning and a calibration leave, on made-up numbers."""
    rows = []
    for n, defence in enumerate(figures.CURVES):
        base = 0.2 + 0.06 * n
        rows.append(row("gray", "clean", 0.0, defence, 0.75))
        rows += [row("gray", "difgsm", eps, defence, base - eps / 60) for eps in (6.0, 2.0)]
        rows.append(row("gray", "fgsm", 4.0, defence, base))
        rows += [row("transfer", "difgsm", 8.0, defence, base + 0.1, source_model="lite2", n=70)]
        rows += [row("transfer", "difgsm", 8.0, defence, base, source_model="squeezenet", n=70)]
        rows += [row("adaptive", "pgd50", eps, defence, base / 4, n=28) for eps in (1.0, 2.0)]
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.2, 1, 400)
    draws = [
        {"series": name, "draws": k, "balanced_accuracy": 0.6 + 0.02 * k**0.5, "balanced_accuracy_ci": [0.5, 0.8]}
        for name in ("clean", "difgsm 2/255")
        for k in (8, 1, 2, 4)
    ]
    pareto = [{"clean": 0.8 - n / 50, "attacked": 0.3 + n / 20, "ms": 3.0 + n % 3} for n in range(8)]
    pareto[3]["name"] = "balanced"
    return {
        "classes": CLASSES,
        "rows": rows,
        "defences": {"sr": {"label": "super-resolution, SR (ours)"}},
        "reliability": {
            "before": {"confidence": sure.tolist(), "correct": (rng.random(400) < sure**2).tolist()},
            "after": {"bins": [{"confidence": 0.5, "accuracy": 0.48, "count": 10}]},
        },
        "draws": draws,
        "pareto": pareto,
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    figures.add_command(made.add_subparsers())
    return made


def execute(*arguments: str) -> int:
    args = parser().parse_args(["figures", *arguments])
    return args.execute(args)


def test_the_command_writes_small_png_files_and_nothing_else(content, tmp_path, capsys):
    source, out = tmp_path / "out.json", tmp_path / "report"
    source.write_text(json.dumps(content), encoding="utf-8")
    assert execute(str(source), "--out", str(out)) == 0
    written = {path.name: path for path in out.iterdir()}
    assert set(written) == {
        "confusion-standard-difgsm-2.png",
        "confusion-standard-difgsm-6.png",
        "curves-standard-difgsm.png",
        "reliability.png",
        "draws.png",
        "pareto.png",
    }
    printed = capsys.readouterr()
    assert sorted(printed.out.split()) == sorted(str(path) for path in written.values())
    assert "never a diagnosis" in printed.err
    for name, path in written.items():
        assert path.read_bytes().startswith(PNG), name
        assert path.stat().st_size < figures.MAX_BYTES, name
        pixels = cv2.imread(str(path))
        assert 300 < pixels.shape[1] <= 900 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 8, name


def test_confusions_are_the_runs_in_the_order_of_the_issue(content):
    found = figure_data.confusions(content, "standard", "difgsm", 2.0, figures.CONFUSION_DEFENCES)
    assert [one.label for one in found] == ["bdr", "super-resolution, SR (ours)", "nrp", "mdda_balanced"]
    rows = {r["defence"]: r for r in content["rows"] if r["attack"] == "difgsm" and r["eps"] == 2 and r["n"] == 140}
    for name, one in zip(figures.CONFUSION_DEFENCES, found, strict=True):
        assert np.array_equal(one.counts, rows[name]["confusion"])
        assert np.allclose(one.shares.sum(1), 1)
    apart = {"confusions": [r | {"attack": "difgsm"} for r in rows.values()]}
    assert len(figure_data.confusions(apart, "standard", "difgsm", 2.0, figures.CONFUSION_DEFENCES)) == 4
    assert figure_data.networks(apart) == ["standard"]
    assert figure_data.confusions(content, "standard", "difgsm", 3.0, figures.CONFUSION_DEFENCES) == []


def test_a_class_without_images_has_no_shares():
    counts = np.zeros((7, 7), int)
    counts[0, 0] = 3
    wide = {"rows": [row("gray", "difgsm", 2.0, "bdr", 0.5, confusion=counts.tolist())]}
    (one,) = figure_data.confusions(wide, "standard", "difgsm", 2.0, ("bdr",))
    assert one.shares[0, 0] == 1 and one.shares[1:].sum() == 0
    wide["rows"][0]["confusion"] = [[1, 2]]
    with pytest.raises(RobustnessError, match="square"):
        figure_data.confusions(wide, "standard", "difgsm", 2.0, ("bdr",))


def test_curves_hold_the_rows_sorted_with_their_intervals(content):
    gray, transfer, adaptive = figure_data.panels(content, "standard", "difgsm", figures.CURVES)
    first = gray.curves[0]
    assert (gray.threat_model, gray.attack, first.defence, gray.n) == ("gray", "difgsm", "none", 140)
    assert first.eps == [0.0, 2.0, 6.0]
    assert first.value == pytest.approx([0.75, 0.2 - 2 / 60, 0.1])
    assert first.low == pytest.approx([value - 0.05 for value in first.value])
    assert first.high == pytest.approx([value + 0.05 for value in first.value])
    assert [curve.defence for curve in gray.curves] == list(figures.CURVES)
    assert transfer.source_model == "squeezenet" and transfer.curves[0].value == pytest.approx([0.2])
    assert adaptive.attack == "pgd50"
    assert adaptive.curves[0].eps == [1.0, 2.0], "clean accuracy of other images does not belong here"
    assert figure_data.attacks_with_curves(content, "standard") == ["difgsm"]


def test_of_two_stand_ins_the_one_that_harms_more_counts():
    rows = [row("adaptive", "pgd50", eps, "none", value) for eps, value in ((2.0, 0.1), (4.0, 0.3))]
    rows += [row("adaptive", "pgd50smooth", eps, "none", value) for eps, value in ((2.0, 0.4), (4.0, 0.2), (6.0, 0.1))]
    (panel,) = figure_data.panels({"rows": rows}, "standard", "difgsm", ("none",))
    assert panel.attack == "pgd50 or pgd50smooth"
    assert (panel.curves[0].eps, panel.curves[0].value) == ([2.0, 4.0, 6.0], pytest.approx([0.1, 0.2, 0.1]))


def test_a_curve_is_of_one_set_of_images():
    """As the full plan leaves it: two eps on 121 images, three on 35, clean on both; adaptive on 7 and on 14."""
    rows = [row("gray", "clean", 0.0, "none", 0.7, n=121), row("gray", "clean", 0.0, "none", 0.6, n=35)]
    rows += [row("gray", "difgsm", eps, "none", 0.5 - eps / 20, n=121) for eps in (2.0, 6.0)]
    rows += [row("gray", "difgsm", eps, "none", 0.4 - eps / 40, n=35) for eps in (1.0, 4.0, 8.0)]
    rows += [row("gray", "fgsm", eps, "none", 0.3, n=n) for eps, n in ((2.0, 121), (4.0, 35))]
    rows += [row("adaptive", "pgd50", 2.0, "none", 0.1, n=n) for n in (7, 14)]
    gray, adaptive = figure_data.panels({"rows": rows}, "standard", "difgsm", ("none",))
    assert (gray.n, gray.curves[0].eps) == (35, [0.0, 1.0, 4.0, 8.0])
    assert gray.curves[0].value == pytest.approx([0.6, 0.375, 0.3, 0.2])
    assert (adaptive.n, adaptive.curves[0].eps) == (14, [2.0]), "of equals the larger set; no clean row of 14 images"
    # One eps on each of two sets is no curve.
    assert figure_data.attacks_with_curves({"rows": rows}, "standard") == ["difgsm"]
    # As many eps on both: the larger set.
    both = [r for r in rows if r["eps"] != 8.0]
    gray, _ = figure_data.panels({"rows": both}, "standard", "difgsm", ("none",))
    assert (gray.n, gray.curves[0].eps, gray.curves[0].value[0]) == (121, [0.0, 2.0, 6.0], 0.7)


def test_reliability_bins_are_those_of_the_calibration_error():
    from export.metrics import calibration_error

    rng = np.random.default_rng(5)
    probabilities = rng.dirichlet(np.full(7, 0.5), 300)
    targets = rng.integers(0, 7, 300)
    sure, right = probabilities.max(1), probabilities.argmax(1) == targets
    bins = figure_data.reliability_bins(sure, right)
    assert sum(b["count"] for b in bins) == 300
    assert figure_data.calibration_error(bins) == pytest.approx(calibration_error(targets, probabilities))
    assert figure_data.reliability_bins([1.0], [True]) == [{"confidence": 1.0, "accuracy": 1.0, "count": 1}]
    with pytest.raises(RobustnessError, match="2 confidences for 1 outcomes"):
        figure_data.reliability_bins([0.5, 0.6], [True])
    with pytest.raises(RobustnessError, match="within 0 and 1"):
        figure_data.reliability_bins([1.5], [True])


def test_the_front_holds_what_nothing_beats():
    points = [
        {"clean": 0.8, "attacked": 0.4, "ms": 5},
        {"clean": 0.7, "attacked": 0.5, "ms": 5},
        {"clean": 0.7, "attacked": 0.4, "ms": 5},
        {"clean": 0.7, "attacked": 0.4, "ms": 2},
        {"clean": 0.8, "attacked": 0.4, "ms": 5},
    ]
    assert figure_data.pareto_front(points) == [True, True, False, True, True]  # equals do not beat each other


def test_draws_are_sorted_by_series(content):
    clean, attacked = figure_data.draw_curves(content)
    assert (clean.defence, attacked.defence) == ("clean", "difgsm 2/255")
    assert clean.eps == [1, 2, 4, 8] and clean.value == sorted(clean.value)
    assert figure_data.draw_curves({"draws": [{"draws": 1, "balanced_accuracy": 0.5}]})[0].low == [0.5]


def test_the_rows_of_tune_and_alarm_are_told_apart_from_a_runs(content, tmp_path):
    settings = [{"params": {}, "clean": 0.8, "attacked": 0.4, "ms": 3.0}, {"clean": 0.7, "attacked": 0.5, "ms": 4.0}]
    alarm = {"attack": "clean", "eps": 0.0, "threat_model": "gray", "draws": 1, "balanced_accuracy": 0.7}
    files = {
        "run": {"rows": content["rows"]},
        "tune": {"rows": settings, "chosen": {"mild": 0}, "front": [1], "n": 3},
        "alarm": {"rows": [alarm, alarm | {"attack": "difgsm", "eps": 2.0}]},
    }
    for name, part in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    found = figure_data.read(tmp_path / f"{name}.json" for name in files)
    assert found["rows"] == content["rows"]
    assert [point.get("name") for point in found["pareto"]] == ["mild", None]
    assert [point["front"] for point in found["pareto"]] == [False, True], "the search's front, not another one"
    rings = figures.pareto_figure(found["pareto"]).axes[0].collections[1].get_offsets()
    assert rings.tolist() == [[0.7, 0.5]]
    assert [curve.defence for curve in figure_data.draw_curves(found)] == ["clean", "difgsm 2/255, gray"]


def test_a_strip_shows_the_perturbation_sixteen_times(drawn_image):
    attacked = drawn_image.astype(int)
    attacked[:112] += 4
    attacked = np.clip(attacked, 0, 255).astype(np.uint8)
    canvas = strips.strip(drawn_image[None], attacked[None], drawn_image[None])
    step, top = strips.PANEL + strips.STRIP_GAP, strips.STRIP_HEAD
    parts = [canvas[top : top + 224, strips.STRIP_GAP + n * step :][:, :224] for n in range(4)]
    assert np.array_equal(parts[0], drawn_image) and np.array_equal(parts[1], attacked)
    free = drawn_image[:112] <= 251
    assert (parts[2][:112][free] == 128 + 4 * strips.GAIN).all() and (parts[2][112:] == 128).all()
    assert np.array_equal(parts[3], drawn_image)


def test_a_png_fits_its_limit_or_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
    exact = cv2.imdecode(np.frombuffer(figures.png_bytes(noise, None), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(exact[..., ::-1], noise)
    assert len(figures.png_bytes(noise, 12_000)) < 12_000
    with pytest.raises(RobustnessError, match="does not fit into 1000 bytes"):
        figures.png_bytes(noise, 1000)


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_photographs_may_not_enter_the_repository(tmp_path, content):
    assert figures.may_hold_photographs(tmp_path / "new")
    assert not figures.may_hold_photographs(ROOT)
    assert not figures.may_hold_photographs(ROOT / "benchmarks" / "figures")
    source = tmp_path / "out.json"
    source.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RobustnessError, match="photographs must not lie"):
        execute(str(source), "--out", str(ROOT / "benchmarks" / "figures"), "--photographs")


def test_what_cannot_be_drawn_is_one_line(tmp_path):
    source = tmp_path / "out.json"
    with pytest.raises(RobustnessError, match="nothing to draw"):
        execute("--out", str(tmp_path))
    with pytest.raises(RobustnessError, match="cannot be read"):
        execute(str(source), "--out", str(tmp_path))
    figured = {"clean": 0.7, "attacked": 0.5, "ms": 4.0}
    broken: list[tuple[object, str]] = [
        ([], "holds none of"),
        ({"rows": []}, "holds no rows"),
        ({"rows": [1]}, "'rows' is no list of objects"),
        ({"rows": {"a": 1}}, "'rows' is no list of objects"),
        ({"rows": "abc"}, "'rows' is no list of objects"),
        ({"rows": None}, "'rows' is no list of objects"),
        ({"rows": [row("gray", "difgsm", 2.0, "bdr", 0.5) | {"eps": "2"}]}, "'rows' number 1 has no usable 'eps'"),
        ({"rows": [row("gray", "difgsm", 2.0, "bdr", 0.5), {}]}, "'rows' number 2 has no usable 'network'"),
        ({"rows": [{"draws": 1}]}, "no usable 'balanced_accuracy'"),
        # Of ablate and of choose-defences: no search, no run.
        ({"preset": "balanced", "rows": [{"variant": "1 block", **figured}]}, "no usable 'network'"),
        ({"rows": [{"defence": "jpeg", "parameters": {}, "clean": 0.7, "mean": 0.5}]}, "no usable 'network'"),
        ({"rows": [{"params": {}, **figured}], "front": [1]}, "a row that is not there"),
        ({"rows": [{"params": {}, **figured}], "front": [0], "chosen": {"mild": "0"}}, "a row that is not there"),
        ({"rows": [{"params": {}, "clean": 0.7}], "front": [0]}, "no usable 'attacked'"),
        ({"pareto": [{"clean": 1}]}, "'pareto' number 1 has no usable 'attacked'"),
        ({"reliability": {"before": [1]}}, "'reliability' holds no sets"),
    ]
    for text, message in [("{", "not JSON"), *((json.dumps(content), message) for content, message in broken)]:
        source.write_text(text, encoding="utf-8")
        with pytest.raises(RobustnessError, match=message) as caught:
            execute(str(source), "--out", str(tmp_path / "new"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [("none,mda", "unknown 'mda'"), (",", "unknown ''"), (",".join((*figures.CURVES, "rof")), "at most 9")],
)
def test_defences_of_the_curves_are_checked(names, message, capsys, tmp_path):
    with pytest.raises(SystemExit):
        parser().parse_args(["figures", "x.json", "--out", str(tmp_path), "--defences", names])
    assert message in capsys.readouterr().err


def test_the_demo_strip_is_an_attack_on_the_drawn_picture():
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchattacks")
    from benchmarks.robustness import strips

    class Brightness(torch.nn.Module):
        """Two classes: a dark or a bright left half."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, pixels):
            bright = self.weight * pixels[..., :112].mean((1, 2, 3)) / 255
            return torch.stack([1 - bright, bright], 1)

    canvas = strips.attacked_demo(Brightness())
    side, top = strips.DEMO_PANEL, strips.STRIP_HEAD
    assert canvas.shape == (top + side + strips.STRIP_GAP, strips.STRIP_GAP + 4 * (side + strips.STRIP_GAP), 3)
    change = canvas[top : top + side, strips.STRIP_GAP + 2 * (side + strips.STRIP_GAP) :][:, :side].astype(int)
    assert abs(change[:, : side // 2 - 2] - 128).mean() > 2 * abs(change[:, side // 2 + 2 :] - 128).mean()
    assert len(figures.png_bytes(canvas)) < figures.MAX_BYTES


def test_the_set_to_show_is_the_weakest_attack():
    from benchmarks.robustness import strips

    sets = {f"standard/gray/difgsm/standard/{eps}": {"n": eps} for eps in (10, 2, 6)}
    assert strips.chosen_set({"sets": sets | {"standard/gray/fgsm/standard/1": {}}}) == {"n": 2}
    with pytest.raises(RobustnessError, match="names no images"):
        strips.chosen_set({"rows": []})
