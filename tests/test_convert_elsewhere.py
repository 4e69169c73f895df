"""Pictures of other clinics for the operating point: read with what is known of them, refused in one line if not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mdda.mdda.params import PRESETS
from edge_mdda.mdda.purifier import Purifier
from edge_mdda.picture.decode import decode, fit
from export.convert import elsewhere
from export.dataset import DatasetError
from export.evaluate import purifier_seed

SIZE = (48, 64, "squeeze")
MALIGNANT = frozenset({"mel", "bcc"})


def clinic(folder: Path, header: str, rows: list[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for row in rows:
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / f"{row.split(',')[0]}.jpg"), picture)
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_both_views_and_what_is_malignant(tmp_path):
    folder = clinic(tmp_path / "north", "image_id,dx,split", ["a,mel,val", "b,nv,val", "c,bcc,test", "d,nv,train"])
    source = elsewhere.read(folder, SIZE, MALIGNANT, 3)
    assert source.name == "north" and set(source.splits) == {"val", "test"}  # what was trained on judges nothing
    val = source.splits["val"]
    assert val.positive.tolist() == [True, False] and source.splits["test"].positive.tolist() == [True]
    path = folder / "images" / "a.jpg"
    raw = fit(decode(path.read_bytes()), *SIZE)
    np.testing.assert_array_equal(val.raw[0], raw)
    with Purifier(*SIZE[:2], PRESETS["balanced"]) as purifier:
        np.testing.assert_array_equal(val.purified[0], purifier.purify(raw, purifier_seed(path, 3)))


def test_malignant_or_not_is_enough(tmp_path):
    folder = clinic(tmp_path / "south", "image_id,malignant,split", ["a,1,test", "b,0,test"])
    assert elsewhere.read(folder, SIZE, MALIGNANT, 0).splits["test"].positive.tolist() == [True, False]


@pytest.mark.parametrize("rows", [["a,nv,train"], []])
def test_a_source_without_pictures_to_judge_by_is_refused(tmp_path, rows):
    folder = clinic(tmp_path / "east", "image_id,dx,split", rows)
    with pytest.raises(DatasetError, match="names no picture of the splits val or test"):
        elsewhere.read(folder, SIZE, MALIGNANT, 0)


def test_a_source_without_labels_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"labels\.csv: cannot be read"):
        elsewhere.read(tmp_path, SIZE, MALIGNANT, 0)
