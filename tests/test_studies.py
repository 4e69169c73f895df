"""Choosing presets, ablation, and the tamper alarm: their rules on made-up rows, and one small run each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.robustness import ablate, alarm, calibrate, tune
from benchmarks.robustness.errors import RobustnessError
from edge_mdda.mdda.params import PRESETS, PRESETS_FILE, MddaParams

STAGES = ("before", "after")


def row(clean: float, attacked: float, ms: float, melanoma: float = 0.7) -> dict:
    return {"clean_all": clean, "melanoma": melanoma, "left": 0.5, "attacked": attacked, "ms": ms}


def test_presets_are_the_best_under_attack_that_clean_accuracy_allows():
    rows = [row(0.83, 0.3, 3), row(0.80, 0.5, 5), row(0.79, 0.6, 7), row(0.79, 0.595, 6), row(0.76, 0.7, 9)]
    for n, one in enumerate(rows):
        one["strength"] = n + 1.0
    assert tune.choose(rows, row(0.80, 0, 0)) == {
        "mild": 0,
        "balanced": 3,
        "strong": 4,
    }  # 0.595 is as good as 0.6, and faster
    # Nothing gains a point: the mild one is the best on clean images.
    rows[1]["clean_all"] = 0.82
    assert tune.choose(rows, row(0.83, 0, 0)) == {"mild": 0, "balanced": 1, "strong": 3}
    rows[1]["clean_all"] = 0.80
    with pytest.raises(RobustnessError, match="'balanced'"):  # the mild one alone loses so little, and no name lies
        tune.choose(rows, row(0.83, 0, 0))
    with pytest.raises(RobustnessError, match="'balanced'"):
        tune.choose(rows, row(0.95, 0, 0))
    # Only the strong one may find fewer melanomas.
    rows[3]["melanoma"] = rows[4]["melanoma"] = 0.69
    assert tune.choose(rows, row(0.80, 0, 0)) == {"mild": 0, "balanced": 2, "strong": 4}
    # None may blur away more than it purifies.
    rows[4]["left"] = 0.93
    assert tune.choose(rows, row(0.80, 0, 0))["strong"] == 3
    rows[3]["strength"] = rows[2]["strength"]  # as strong as the balanced one is not stronger
    with pytest.raises(RobustnessError, match="'strong': all are too weak"):
        tune.choose(rows, row(0.80, 0, 0))


def test_a_stronger_purifier_leaves_more_of_fine_noise_and_blur():
    left = [tune.error_left(PRESETS[name]) for name in ("balanced", "strong")]
    assert 0 < left[0] < left[1] < tune.MOST_LEFT


def test_the_grid_holds_strengths_that_the_solver_meets():
    grid = tune.grid()
    assert len(grid) == len(set(map(repr, grid))) == (3 * 6 + 3 + 5 + 5) * len(tune.BLOCKS)
    assert {params.scales[0] for params in grid} == {1.0, 2.0}
    assert all(sum(params.output_weights) == pytest.approx(1) for params in grid)


def test_the_shipped_presets_name_the_run_that_chose_them(tmp_path, monkeypatch):
    stored = json.loads(Path(PRESETS_FILE).read_text(encoding="utf-8"))
    assert stored["chosen_by"]["command"].startswith("python -m benchmarks.")
    assert stored["chosen_by"]["split"] == "val"
    assert set(stored["presets"]) == set(PRESETS) == {"mild", "balanced", "strong"}
    # Written and read again, they are the same.
    monkeypatch.setattr(tune, "PRESETS_FILE", tmp_path / "presets.json")
    figures = {"clean": 0.7, "clean_all": 0.8, "melanoma": 0.7, "attacked": 0.5} | {
        f"{attack}_{eps:g}": 0.5 for attack, eps in tune.ATTACKS
    }
    rows = [{"params": params.to_dict(), "ms": 1.0, **figures} for params in PRESETS.values()]
    about = dict.fromkeys(("command", "network", "model_sha256", "split", "n", "n_clean"), "x")
    tune.write({name: n for n, name in enumerate(PRESETS)}, rows, rows[0], about)
    from edge_mdda.mdda.params import _read_presets

    assert _read_presets(str(tmp_path / "presets.json")) == PRESETS
    written = json.loads((tmp_path / "presets.json").read_text(encoding="utf-8"))
    stated = [preset["figures"] for preset in written["presets"].values()]
    assert {one["clean"] for one in (*stated, written["chosen_by"]["without_purifier"])} == {0.8}
    assert [set(one) for one in stated] == [set(stored["presets"][name]["figures"]) for name in PRESETS]


def test_each_variant_lacks_what_its_name_says():
    found = ablate.variants(PRESETS["balanced"])
    assert found["as it is"] == PRESETS["balanced"]
    assert len(set(map(repr, found.values()))) == len(found)
    assert found["no pyramid (scale 1 only)"].scales == (1.0,)
    four = MddaParams(scales=(2.0, 1.0, 0.5, 0.25), output_weights=(0.2, 0.4, 0.3, 0.1))
    three = ablate.variants(four)["no finer scale"]
    assert (three.scales, three.output_weights) == ((1.0, 0.5, 0.25), (0.4, 0.3, 0.1))
    again = ablate.variants(three)["a finer scale more"]
    assert (again.scales, again.output_weights) == (four.scales, (0.2, 0.2, 0.3, 0.1))
    assert found["no diffusion (sigma 0)"].sigma == 0
    assert found["no denoising (lam 0)"].lam == 0
    assert found["no aggregation between scales"].neighbour_weights(1) == (0, 1, 0)
    assert {params.n_blocks for params in found.values()} == set(range(1, ablate.MOST_BLOCKS + 1))


def test_averages_of_draws_against_their_definition():
    answers = np.random.default_rng(0).dirichlet(np.ones(4), (8, 30))
    found = alarm.averages(answers, (1, 3, 8), (0, 2))
    np.testing.assert_allclose(found[3][0], (answers[0] + answers[1] + answers[2]) / 3)
    shares = answers[:, :, 0] + answers[:, :, 2]
    assert found[8][1] == pytest.approx(np.mean([np.std(shares[:, n]) for n in range(30)]))
    assert found[1][1] == 0


def test_disagreement_of_equal_and_of_disjoint_views():
    one = np.eye(3)
    np.testing.assert_allclose(alarm.disagreements(one, one), 0)
    np.testing.assert_allclose(alarm.disagreements(one, one[[1, 2, 0]]), 1)


@pytest.fixture(scope="module")
def study(data_folder, tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("torchattacks")
    import argparse

    from benchmarks.robustness.study import Study

    args = argparse.Namespace(
        cache=tmp_path_factory.mktemp("cache"), data=data_folder, model="standard", images=1, seed=0, threads=1
    )
    return Study.open(args, "val")


def test_a_small_search_gives_a_row_for_each_variant(study, monkeypatch):
    monkeypatch.setattr(tune, "ATTACKS", (("fgsm", 2.0),))
    without, rows = tune.search(study, [PRESETS["mild"], MddaParams(n_blocks=1)], lambda text: None)
    assert without["params"] is None
    assert without["ms"] == 0
    assert [r["params"] for r in rows] == [PRESETS["mild"].to_dict(), MddaParams(n_blocks=1).to_dict()]
    for r in rows:
        assert 0 <= r["clean"] <= 1
        assert r["attacked"] == r["fgsm_2"]
        assert r["ms"] > 0
    assert study.about("a test")["split"] == "val"
    searched = [r["clean"] for r in rows]
    tune.judge_clean(study, [without, *rows])
    assert [r["clean"] for r in rows] == searched, "the front was drawn from these"
    assert [r["clean_all"] for r in rows] == searched, "the same photographs once more"
    assert (without["left"], rows[0]["left"] < 1) == (1.0, True)
    stated = tune.front_line(rows[0] | {"clean": 0.123, "clean_all": 0.456, "fgsm_2": 0.789, "attacked": 0.789})
    assert "0.456" in stated and "0.123" not in stated


def test_the_alarm_hears_an_attack_better_than_none(study):
    judge = alarm.Alarm(study, "balanced", (1, 2))
    clean = judge.rows("clean", 0.0, "gray", None)
    assert [r["draws"] for r in clean] == [1, 2]
    assert clean[0]["auroc"] is None
    attacked = judge.rows("pgd10", 4.0, "gray", study.attacked("pgd10", 4.0))
    assert attacked[0]["auroc"] > 0.5
    assert attacked[0]["alarms"] >= clean[0]["alarms"]
    assert alarm.line(attacked[0]).count("|") == alarm.HEAD.splitlines()[0].count("|")


def test_the_temperature_can_be_taken_back():
    logits = np.random.default_rng(3).normal(0, 3, (50, 7))

    def softmax(values):
        powers = np.exp(values - values.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    np.testing.assert_allclose(calibrate.without_temperature(softmax(logits / 0.8), 0.8), softmax(logits))


def test_answers_that_are_as_sure_as_they_are_right_lie_on_the_diagonal():
    answers = np.tile([0.8, 0.2], (10, 1))
    assert calibrate.bins_of(answers, np.array([0] * 8 + [1] * 2)) == [
        {"confidence": pytest.approx(0.8), "accuracy": 0.8, "count": 10}
    ]


def test_calibration_of_a_few_photographs(data_folder, tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("torchattacks")
    from benchmarks.robustness.__main__ import main

    out = tmp_path / "out.json"
    arguments = ["calibrate", "--data", str(data_folder), "--images", "2", "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found["reliability"]) == {f"{view}, {stage}" for view in ("purified", "raw") for stage in STAGES}
    assert all(sum(b["count"] for b in part["bins"]) == found["n"] for part in found["reliability"].values())
    before, after = (found["reliability"][f"raw, {stage}"]["calibration_error"] for stage in STAGES)
    assert before != after
    assert capsys.readouterr().out.count("| purified |") == 2


@pytest.mark.parametrize("command", ["alarm", "tune", "ablate", "calibrate", "choose-defences"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "foo"), "invalid choice: 'foo'"),
        (("--threads", "0"), "must be a whole number from 1 to"),
        (("--images", "0"), "must be a whole number from 1 to"),
        (("--images", "-1"), "must be a whole number from 1 to"),
        (("--seed", "-1"), "must be a whole number from 0 to"),
        (("--json", "no/such/folder/out.json"), "there is no such folder to write to"),
        (("--json", "."), "is a folder; name a file"),
    ],
)
def test_wrong_usage_is_said_before_any_work(command, arguments, said, capsys):
    from benchmarks.robustness.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main([command, *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error


def test_unknown_defence_is_named_before_any_work(capsys):
    from benchmarks.robustness.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main(["choose-defences", "jpeg", "foo"])
    assert caught.value.code == 2
    assert "unknown 'foo', known are none, bdr" in capsys.readouterr().err.splitlines()[-1]
