"""What several test modules share: images, kernels, the tiny network, an installed board, and a watched folder.

The photographs are there only where their data set is.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # `export` is not installed with the package; a bare `pytest` would not find it

DATA = Path(__file__).parent.parent / "../shared/data/ham10000"
SIDE = 224  # what the classifier reads
MADE_UP = {"train": 4, "val": 2}  # images a class of the made-up data set


def pytest_configure(config: pytest.Config) -> None:
    """Let ``--junitxml`` keep the measured numbers: pytest warns of ``record_property`` there, and warnings fail."""
    config.addinivalue_line("filterwarnings", "ignore:record_property is incompatible:pytest.PytestWarning")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of the HAM10000 photographs; tests that need it are skipped elsewhere."""
    if not (DATA / "images").is_dir():
        pytest.skip("no HAM10000 photographs beside the repository")
    return DATA


@pytest.fixture(scope="session")
def photographs(data_folder: Path) -> list[np.ndarray]:
    """Three photographs as (224, 224, 3) uint8 RGB, always the same three."""
    paths = sorted((data_folder / "images").glob("*.jpg"))[:3]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    return [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images]


@pytest.fixture(scope="session")
def drawn_image() -> np.ndarray:
    """The demo lesion as (224, 224, 3) uint8 RGB; read-only by agreement, copy before you change it."""
    from export.demo import draw

    return cv2.resize(draw(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def kernels():
    """Every compiled kernel by name."""
    from edge_mdda.mdda.kernels import load_kernels

    return load_kernels()


@pytest.fixture(scope="session")
def network():
    """The trained tiny network of the conversion tests."""
    import tiny_networks

    return tiny_networks.trained()


@pytest.fixture(scope="session")
def weights(network, tmp_path_factory) -> Path:
    """Its weights as safetensors."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """``images/`` with 48 drawn pictures, and ``truth.csv``."""
    import tiny_networks

    return tiny_networks.write_pictures(tmp_path_factory.mktemp("pictures"), 16)


@pytest.fixture(scope="session")
def converted(weights, pictures, tmp_path_factory) -> Path:
    """Every ONNX format of the tiny network."""
    from conversion import ONNX_FORMATS, factory_call

    out = tmp_path_factory.mktemp("converted")
    assert factory_call(weights, pictures, out, ",".join(ONNX_FORMATS)) == 0
    return out


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Twelve pictures that nothing else has seen."""
    import tiny_networks

    rng = np.random.default_rng(9)
    return np.stack([tiny_networks.picture(k % 3, rng) for k in range(12)])


@pytest.fixture(scope="session")
def made_up(tmp_path_factory) -> Path:
    """A data set of seven classes of drawn spots, each of its own colour."""
    import csv

    from export.dataset import CLASSES

    root = tmp_path_factory.mktemp("made_up")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for split, n in MADE_UP.items():
        for index, label in enumerate(CLASSES):
            for k in range(n):
                image = rng.normal((225, 180, 160), 4, (96, 96, 3)).clip(0, 255).astype(np.uint8)
                colour = tuple(int(c) for c in np.array([(index * 37) % 150, (index * 91) % 150, (index * 53) % 150]))
                cv2.circle(image, (48, 48), int(rng.integers(15, 30)), colour, -1)
                name = f"{split}_{label}_{k}"
                cv2.imwrite(str(root / "images" / f"{name}.png"), image[..., ::-1])
                rows.append({"image_id": name, "dx": label, "split": split})
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("image_id", "dx", "split"))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> dict[str, Path]:
    """Tiny bundles and keys by name."""
    from bundles import OTHER_SEED, public_key, tiny

    folder = tmp_path_factory.mktemp("store")
    return {
        "1": tiny(folder, "1.0"),
        "2": tiny(folder, "2.0"),
        "selftest": tiny(folder, "3.0", bad="selftest"),
        "health": tiny(folder, "4.0", bad="health"),
        "foreign": tiny(folder, "5.0", seed=OTHER_SEED),
        "key": public_key(folder),
        "other key": public_key(folder, OTHER_SEED),
    }


@pytest.fixture(scope="session")
def base(store, tmp_path_factory) -> tuple[Path, Path]:
    """A prefix with version 1, and a copy to restore it from."""
    from bundles import Place

    prefix = tmp_path_factory.mktemp("board") / "edge-mdda"
    done = Place(prefix).install_sh(store["1"], "--pubkey", store["key"])
    assert done.returncode == 0, done.stderr
    kept = prefix.with_name("kept")
    shutil.copytree(prefix, kept, symlinks=True)
    return prefix, kept


@pytest.fixture
def place(base):
    """A board that runs version 1."""
    from bundles import Place

    prefix, kept = base
    shutil.rmtree(prefix, ignore_errors=True)
    shutil.copytree(kept, prefix, symlinks=True)
    return Place(prefix)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that opens at once."""
    import tiny_models

    return tiny_models.save(tmp_path_factory.mktemp("model"), "tiny.tflite", tiny_models.tflite_model())


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The folder that is watched."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def no_child_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    from watch_folder import end_children

    yield
    end_children()


@pytest.fixture
def manager(tmp_path: Path):
    """What systemd is for the service."""
    from watch_folder import Manager

    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()


# -- attacks on a tiny network ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_torch_thread():
    """A tiny network gains nothing from more threads, and loses a lot on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(network):
    """A tiny network of the class scores of pixels, in evaluation mode."""
    from tiny_attacked import TinyPixels

    return TinyPixels(network).eval()


@pytest.fixture(scope="module")
def photos():
    """Drawn pictures with classes, as the robustness study holds photographs."""
    from tiny_attacked import drawn_photographs

    return drawn_photographs()
