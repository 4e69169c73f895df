"""Figures by source, and operating points: made-up cases counted by hand, and photographs where there are some."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_models

from export.__main__ import main
from export.by_source import by_patient, of_advice, report_source, worst
from export.cases import NOT_KNOWN, Case, Screened, age_band, body_site
from export.errors import ExportError
from export.operate import LEAST_CASES, choose, require_enough
from export.risk_coverage import risk_coverage

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
COLOURS = {"a": (230, 120, 100), "b": (120, 220, 140), "c": (110, 60, 220)}  # what the tiny model tells apart
MALIGNANT = "a"


def write_source(folder: Path, rows: list[dict[str, object]], colours: list[tuple[int, ...]]) -> Path:
    (folder / "images").mkdir(parents=True)
    for row, colour in zip(rows, colours, strict=True):
        picture = np.full((64, 64, 3), colour, np.uint8)
        picture[24:40, 24:40] //= 2
        cv2.imwrite(str(folder / "images" / f"{row['image_id']}.png"), picture[..., ::-1])
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def jittered(label: str, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in np.clip(np.array(COLOURS[label]) + rng.integers(-70, 71, 3), 0, 255))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Two sources: classes a, b and c; and malignant or not, by patient, without a val split."""
    root = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    labels = [label for label in COLOURS for _ in range(8)]
    rows = [
        {"image_id": f"x{k}", "dx": label, "age": 20 + 3 * k, "sex": "female", "localization": "back", "split": split}
        for k, label in enumerate(labels)
        for split in ["val" if k % 8 == 0 else "test"]
    ]
    write_source(root / "classes", rows, [jittered(label, rng) for label in labels])
    malignant = [k % 4 == 0 for k in range(16)]
    rows = [
        {"image_id": f"y{k}", "patient_id": f"p{k // 8}", "malignant": int(bad), "split": "test"}
        for k, bad in enumerate(malignant)
    ]
    write_source(root / "patients", rows, [jittered("a" if bad else "b", rng) for bad in malignant])
    return root


@pytest.fixture(scope="module")
def report(sources, model, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("report") / "report.json"
    command = ["evaluate", "--source", "all", "--sources-root", str(sources), "--model", str(model)]
    assert main([*command, "--json", str(out)]) == 0
    return json.loads(out.read_text())


def raw_shares(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Malignant or not, and the tiny model's share, from its own formula."""
    with (folder / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    pictures = [cv2.imread(str(folder / "images" / f"{row['image_id']}.png"))[..., ::-1] for row in rows]
    positive = [row.get("dx") == MALIGNANT or row.get("malignant") == "1" for row in rows]
    return np.array(positive), tiny_models.expected(np.stack(pictures))[:, 0]


@pytest.mark.parametrize("name", ["classes", "patients"])
def test_the_raw_view_is_what_the_network_says(report, sources, name):
    positive, share = raw_shares(sources / name)
    found = report["sources"][name]
    assert found["n"] == len(positive) and found["malignant_cases"] == positive.sum()
    clear = np.abs(share - 0.5) > 0.02  # int8 rounds
    sensitivity, specificity = found["views"]["raw"]["sensitivity"], found["views"]["raw"]["specificity"]
    unsure = int((~clear).sum())
    assert abs(sensitivity["hits"] - int((share[positive] >= 0.5).sum())) <= unsure
    assert abs(specificity["hits"] - int((share[~positive] < 0.5).sum())) <= unsure
    assert 0.6 < found["views"]["raw"]["auroc"] <= 1
    assert sensitivity["ci"][0] <= sensitivity["share"] <= sensitivity["ci"][1]


def test_balanced_accuracy_only_where_every_class_occurs(report):
    assert "balanced_accuracy" in report["sources"]["classes"]["views"]["purified"]
    assert "balanced_accuracy" not in report["sources"]["patients"]["views"]["purified"]
    assert report["sources"]["classes"]["by_patient"] is None
    assert report["sources"]["patients"]["by_patient"]["patients"] == 2


def test_subgroups_add_up_and_the_advice_is_one_of_three(report):
    for found in report["sources"].values():
        for values in found["subgroups"].values():
            assert sum(part["n"] for part in values.values()) == found["n"]
            assert sum(p["sensitivity"]["hits"] for p in values.values()) == found["advice"]["sensitivity"]["hits"]
        for kind, n in (("malignant", found["malignant_cases"]), ("benign", found["n"] - found["malignant_cases"])):
            assert sum(part["hits"] for part in found["advice"][kind].values()) == n
    assert set(report["sources"]["classes"]["subgroups"]["site"]) == {"trunk"}
    assert set(report["sources"]["patients"]["subgroups"]["age"]) == {NOT_KNOWN}


def test_the_worst_is_the_lowest_and_the_skin_type_is_not_known(report):
    for figure in ("sensitivity", "specificity"):
        values = {name: found["advice"][figure]["share"] for name, found in report["sources"].items()}
        assert report["worst"][figure]["value"] == min(values.values())
        assert values[report["worst"][figure]["source"]] == min(values.values())
    assert "not known" in report["skin_type"]


def test_the_table_holds_what_a_reader_needs_and_names_a_source_without_the_split(sources, model, capsys):
    command = ["evaluate", "--source", "all", "--sources-root", str(sources), "--model", str(model)]
    assert main([*command, "--split", "val"]) == 0
    printed = capsys.readouterr().out
    assert "patients has no pictures of split val" in printed
    assert "Skin type is not known" in printed and "Worst sensitivity: classes" in printed
    assert "| REFER | RETAKE | ROUTINE |" in printed


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--source", "nowhere"], "no source 'nowhere'; choose all, classes, patients"),
        (["--source", "patients", "--split", "val"], "no rows of split 'val'"),
        (["--source", "all", "--images", "x", "--labels", "y"], "exclude each other"),
        (["--source", "all", "--model", "checkpoint.pt"], "convert the checkpoint first"),
        (["--source", "all", "--sources-root", "missing"], "holds no source"),
    ],
)
def test_refusals_are_one_line(sources, capsys, extra, message):
    assert main(["evaluate", "--sources-root", str(sources), *extra]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("text", "band"), [("29", "under 30"), ("30.0", "30 to 49"), ("70", "70 and over"),
                                            ("", NOT_KNOWN), ("old", NOT_KNOWN), ("-1", NOT_KNOWN)])  # fmt: skip
def test_age_bands(text, band):
    assert age_band(text) == band


@pytest.mark.parametrize(("text", "site"), [("anterior torso", "trunk"), ("lower extremity", "arms and legs"),
                                            ("head/neck", "head and neck"), ("palms/soles", "hands and feet"),
                                            ("", NOT_KNOWN), ("tail", "tail")])  # fmt: skip
def test_body_sites(text, site):
    assert body_site(text) == site


def made(positive: np.ndarray, score: np.ndarray, refer_at: float = 0.5, patients: list[str] | None = None) -> Screened:
    """Cases whose views agree and whose malignant share is ``score``."""
    cases = tuple(
        Case(Path(f"{k}.png"), bool(bad), int(not bad), NOT_KNOWN, NOT_KNOWN, NOT_KNOWN, patients and patients[k])
        for k, bad in enumerate(positive)
    )
    answers = np.stack([score, 1 - score], 1)
    advice = np.where(score >= refer_at, "refer", "routine")
    return Screened(cases, answers, answers, score, advice, np.zeros(len(score), bool))


def drawn(malignant: int, benign: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.arange(malignant + benign) < malignant
    return positive, np.where(positive, rng.beta(4, 2, malignant + benign), rng.beta(2, 4, malignant + benign))


def test_per_patient_by_hand():
    score = np.array([0.9, 0.1, 0.1, 0.9, 0.9, 0.1])
    found = by_patient(made(np.zeros(6, bool), score, patients=["p", "p", "p", "p", "q", "r"]), 0)
    assert found["patients"] == 3
    assert found["referred_share"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["with_a_referral"]["hits"] == 2
    assert found["referred_share_ci"][0] < 0.5 < found["referred_share_ci"][1]


def test_a_small_subgroup_has_no_area_and_an_empty_kind_no_share():
    positive, score = drawn(5, 50)
    assert np.isnan(of_advice(made(positive, score), 0, area_from=10)["auroc"])
    alone = of_advice(made(np.zeros(4, bool), np.full(4, 0.2)), 0)
    assert np.isnan(alone["sensitivity"]["share"]) and alone["specificity"]["share"] == 1
    assert "sensitivity" not in worst({"x": {"advice": alone}})


def test_risk_against_coverage_by_counting():
    positive, score = drawn(40, 160)
    rows = risk_coverage(positive, score)
    for row in rows[1:]:
        seen = score >= row["refer_at"]
        assert row["left"] == pytest.approx(seen.mean())
        assert row["missed"]["hits"] == sum(p and not s for p, s in zip(positive, seen, strict=True))
        assert row["error"]["n"] == (~seen).sum()
    missed = [row["missed"]["hits"] for row in rows]
    assert missed[0] == 40 and missed == sorted(missed, reverse=True)


def test_equal_scores_stay_together():
    rows = risk_coverage(np.array([True, False, False, False]), np.full(4, 0.3))
    assert [row["left"] for row in rows] == [0] + [1] * (len(rows) - 1)


@pytest.mark.parametrize("sensitivity", [0.8, 0.95, 1.0])
def test_the_chosen_point_does_what_was_asked_and_is_the_largest(sensitivity):
    positive, score = drawn(100, 300)
    point = choose(made(positive, score), sensitivity, 0.1)
    assert (score[positive] >= point["refer_at"]).mean() >= sensitivity
    assert (score[positive] >= point["refer_at"] + 2e-4).mean() < sensitivity
    low, high = point["refer_at_ci"]
    assert low <= point["refer_at"] + 1e-4 and point["refer_at"] <= high
    assert point["chosen_on_these"]["specificity"]["hits"] == (score[~positive] < point["refer_at"]).sum()


def test_what_is_expected_elsewhere_is_what_happens_there():
    """On average over clinics the estimate meets the sensitivity on 4,000 new cases; the one in sample is higher."""
    new_positive, new_score = drawn(2000, 2000, 99)
    told, true, in_sample = [], [], []
    for clinic in range(12):
        positive, score = drawn(40, 60, clinic)
        point = choose(made(positive, score), 0.95, 0.1)
        told.append(point["expected_elsewhere"]["sensitivity"][0])
        true.append((new_score[new_positive] >= point["refer_at"]).mean())
        in_sample.append(point["chosen_on_these"]["sensitivity"]["share"])
    assert abs(np.mean(told) - np.mean(true)) < 0.03
    assert np.mean(in_sample) >= 0.9499 > np.mean(told)


def test_cases_of_one_patient_are_drawn_together_and_widen_the_interval():
    positive, score = drawn(60, 60)
    four_times = np.repeat(score, 4)
    patients = [f"p{k // 4}" for k in range(len(four_times))]
    alone = choose(made(np.repeat(positive, 4), four_times), 0.9, 0.1)["refer_at_ci"]
    together = choose(made(np.repeat(positive, 4), four_times, patients=patients), 0.9, 0.1)["refer_at_ci"]
    assert together[1] - together[0] > 1.3 * (alone[1] - alone[0])


@pytest.mark.parametrize(("malignant", "benign"), [(LEAST_CASES - 1, 200), (200, LEAST_CASES - 1)])
def test_too_few_cases_are_refused(malignant, benign):
    with pytest.raises(ExportError, match=f"at least {LEAST_CASES} of each"):
        choose(made(*drawn(malignant, benign)), 0.95, 0.1)
    require_enough(LEAST_CASES, LEAST_CASES)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    rng = np.random.default_rng(5)
    bad = [k % 2 == 0 for k in range(2 * LEAST_CASES)]
    rows = [{"image_id": f"z{k}", "malignant": int(b)} for k, b in enumerate(bad)]
    return write_source(tmp_path_factory.mktemp("clinic") / "c", rows, [jittered("a" if b else "b", rng) for b in bad])


def operate(clinic: Path, labels: Path, model: Path, *more: str) -> int:
    return main(["operate", "--images", str(clinic / "images"), "--labels", str(labels), "--model", str(model), *more])


def test_operate_writes_what_was_measured(clinic, model, tmp_path, capsys):
    out = tmp_path / "point.json"
    assert operate(clinic, clinic / "labels.csv", model, "--sensitivity", "0.9", "--out", str(out)) == 0
    point = json.loads(out.read_text())
    assert point["chosen_on_these"]["sensitivity"]["share"] >= 0.9
    assert point["malignant_cases"] == point["benign_cases"] == LEAST_CASES
    assert point["replaces"]["refer_at"] == 0.5 and point["model"]["name"] == "tiny"
    printed = capsys.readouterr().out
    assert f"refer_at {point['refer_at']:.4f}" in printed and "cases that chose nothing" in printed


def test_operate_refuses_below_the_stated_number_and_writes_nothing(clinic, model, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join((clinic / "labels.csv").read_text().splitlines()[:-1]) + "\n")
    out = tmp_path / "point.json"
    assert operate(clinic, labels, model, "--out", str(out)) == 1
    error = capsys.readouterr().err
    assert f"{LEAST_CASES} malignant and {LEAST_CASES - 1} benign" in error and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,kind\nz0,1\n", "needs the column image_id, and dx or malignant"),
        ("image_id,malignant\nz0,maybe\n", "malignant is 0 or 1, not 'maybe'"),
        ("image_id,dx\nz0,wart\n", "unknown dx 'wart'"),
        ("image_id,malignant\nnone,1\n", "no image for image_id 'none'"),
        ("", "needs the column"),
    ],
)
def test_label_files_that_say_too_little(clinic, model, tmp_path, capsys, text, message):
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    assert operate(clinic, labels, model) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_photographs_of_another_source(tmp_path, capsys):
    """The default model on forty photographs of the older archive."""
    source = SHARED / "isic-archive"
    if not (source / "labels.csv").is_file():
        pytest.skip("no photographs of the older archive beside the repository")
    folder = tmp_path / "isic-archive"
    folder.mkdir()
    (folder / "images").symlink_to((source / "images").resolve())
    with (source / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    kept = [row for row in rows if row["dx"] == "mel"][:15] + [row for row in rows if row["dx"] != "mel"][:25]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    out = tmp_path / "out.json"
    assert main(["evaluate", "--source", "isic-archive", "--sources-root", str(tmp_path), "--json", str(out)]) == 0
    found = json.loads(out.read_text())["sources"]["isic-archive"]
    assert (found["n"], found["malignant_cases"]) == (40, 15)
    assert 0.2 < found["advice"]["auroc"] < 1 and "balanced_accuracy" not in found["views"]["raw"]
    assert "Skin type is not known" in capsys.readouterr().out


def test_a_report_names_each_figure(report):
    assert set(report_source(made(*drawn(12, 12)), _Manifest, 0)) == set(report["sources"]["classes"])


class _Manifest:
    labels = {"bad": "", "good": ""}  # noqa: RUF012
    malignant = ("bad",)
    refer_at = 0.5
