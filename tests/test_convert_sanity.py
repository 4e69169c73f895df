"""Networks that a conversion would keep faithfully although they are given the wrong pixels, or say nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("safetensors")

import tiny_networks  # noqa: E402
from conversion import EASY, LABELS, NORMALISE, answers, call, model_in, one_line  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tiny_networks import MEAN, STD, TinyNet  # noqa: E402
from torch import nn  # noqa: E402

from export.convert.binary import two_columns  # noqa: E402
from export.convert.sanity import check_scale, own_normalisation  # noqa: E402
from export.errors import ExportError  # noqa: E402

WHITE = 255
TWO = ["--labels", "benign,malignant"]


class Normalising(TinyNet):
    """Takes pixels in 0..255 and divides by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (1, 3, 1, 1)
        return super().forward(
            (x / WHITE - torch.tensor(MEAN).view(shape) / WHITE) / (torch.tensor(STD).view(shape) / WHITE)
        )


class OfUnitPixels(TinyNet):
    """Normalises pixels in 0..1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (1, 3, 1, 1)
        return super().forward((x - torch.tensor(MEAN).view(shape) / WHITE) / (torch.tensor(STD).view(shape) / WHITE))


class OfTheBatch(TinyNet):
    """A batch norm that never leaves the training mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.batch_norm(x, None, None, training=True))


class WithoutStatistics(TinyNet):
    def __init__(self) -> None:
        super().__init__()
        self.point[1] = nn.BatchNorm2d(8, track_running_stats=False)


class OneOutput(TinyNet):
    """The logit of "dark" against the rest, as one number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.point(self.depthwise(x))
        return self.head(self.down(x).mean((2, 3)))

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 1)


class OneProbability(OneOutput):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(super().forward(x)).squeeze(1)


def convert(kind: type[nn.Module], network: nn.Module, pictures: Path, out: Path, *more: object) -> int:
    """Convert a class of this module with the weights of ``network``."""
    weights = out.with_suffix(".pt")
    torch.save(network.state_dict(), weights)
    return call("convert", f"test_convert_sanity:{kind.__name__}", "--weights", weights, "--input-size", 32,
                "--calibration", pictures / "images", "--verify-labels", pictures / "truth.csv", "--format",
                "onnx-fp32", "--out", out, *EASY, *more)  # fmt: skip


def refused(status: int, capsys, out: Path) -> str:
    assert status == 1 and not out.exists()
    return one_line(capsys)


@pytest.mark.parametrize(
    ("mean", "std", "remedy"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375"),
        ((0.5,), (0.5,), "--mean 127.5 --std 127.5"),
        ((0.0,), (0.25,), "--mean 0 --std 63.75"),
        ((0.485, 0.456, 0.406), (58.4, 57.1, 57.4), "--mean 123.675,116.28,103.53 --std 58.4,57.1,57.4"),
    ],
)
def test_numbers_of_pixels_in_unit_range_are_refused_with_the_right_ones(mean, std, remedy):
    with pytest.raises(ExportError, match=r"pixels in 0\.\.1") as caught:
        check_scale(mean, std)
    assert str(caught.value).endswith(f"give {remedy}")


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,), (1.0,)), ((0.0,), (255.0,)), ((127.5,), (127.5,)), (MEAN, STD), (MEAN, (1.0,)), ((127.0,), (128.0,))],
)
def test_numbers_of_pixels_in_0_to_255_pass(mean, std):
    check_scale(mean, std)


def test_the_command_refuses_them_and_writes_nothing(network, pictures, tmp_path, capsys):
    more = [*LABELS, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    assert "give --mean 123.675" in refused(
        convert(TinyNet_, network, pictures, tmp_path / "o", *more), capsys, tmp_path / "o"
    )


class TinyNet_(TinyNet):  # noqa: N801
    """The tiny network under a name of this module."""


def test_a_network_that_divides_by_itself_is_not_divided_twice(network, pictures, tmp_path, capsys):
    status = convert(Normalising, network, pictures, tmp_path / "o", *LABELS, *NORMALISE)
    assert "divides its pixels by" in (error := refused(status, capsys, tmp_path / "o"))
    assert "leave --mean and --std out" in error
    assert convert(Normalising, network, pictures, tmp_path / "o", *LABELS) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_network_that_wants_unit_pixels_gets_the_remedy_and_works_with_it(network, pictures, tmp_path, capsys):
    status = convert(OfUnitPixels, network, pictures, tmp_path / "o", *LABELS)
    assert refused(status, capsys, tmp_path / "o").endswith("give --std 255")
    assert convert(OfUnitPixels, network, pictures, tmp_path / "o", *LABELS, "--std", 255) == 0


def test_what_a_graph_does_to_its_pixels():
    tensors = {"m": 0.5, "s": 0.25, "w": 255.0}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["t", "w"], ["a"]),
        helper.make_node("Sub", ["a", "m"], ["b"]),
        helper.make_node("Div", ["b", "s"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    shape = [1, 4, 4, 3]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])],
        [numpy_helper.from_array(np.float32([v]), n) for n, v in tensors.items()],
    )
    shift, factor = own_normalisation(helper.make_model(graph), "x")
    assert shift == 0 and factor == pytest.approx(1 / 255 / 0.25)


def test_another_preprocessing_that_fits_much_better_is_a_warning(network, pictures, tmp_path, capsys):
    """A tenth of each pixel goes into a network that was trained on normalised ones."""
    convert(TinyNet_, network, pictures, tmp_path / "o", *LABELS, "--std", "10")
    assert "with --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4; check --mean and --std" in capsys.readouterr().err
    assert convert(TinyNet_, network, pictures, tmp_path / "right", *LABELS, *NORMALISE) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "what"), [(OfTheBatch, "is in training mode"), (WithoutStatistics, "keeps no running")]
)
def test_batch_norms_in_training_mode_are_refused(kind, what, pictures, tmp_path, capsys):
    torch.manual_seed(0)
    error = refused(convert(kind, kind(), pictures, tmp_path / "o", *LABELS, *NORMALISE), capsys, tmp_path / "o")
    assert what in error


def test_an_onnx_file_in_training_mode_is_refused(network, pictures, tmp_path, capsys):
    path = tmp_path / "training.onnx"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tiny_networks.trained().train(),
            (torch.zeros(1, 3, 32, 32),),
            str(path),
            opset_version=17,
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
        )
    out = tmp_path / "o"
    status = call("convert", path, *LABELS, *NORMALISE, *EASY, "--calibration", pictures / "images", "--format",
                  "onnx-fp32", "--out", out)  # fmt: skip
    assert "call network.eval() before the export" in refused(status, capsys, out)


def test_batch_norms_that_saw_no_picture_are_a_warning(network, pictures, tmp_path, capsys):
    fresh = tiny_networks.trained()
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    convert(TinyNet_, fresh, pictures, tmp_path / "o", *LABELS, *NORMALISE)
    assert "saw no picture" in capsys.readouterr().err
    convert(TinyNet_, network, pictures, tmp_path / "o", *LABELS, *NORMALISE)
    assert "saw no picture" not in capsys.readouterr().err


def test_a_network_that_answers_one_class_is_refused(pictures, tmp_path, capsys):
    stuck = tiny_networks.trained()
    with torch.no_grad():
        stuck.head.weight.zero_()
        stuck.head.bias.copy_(torch.tensor([5.0, 0.0, 0.0]))
    error = refused(convert(TinyNet_, stuck, pictures, tmp_path / "o", *LABELS, *NORMALISE), capsys, tmp_path / "o")
    assert "answers 'pale' to all" in error and "check --mean" in error


def test_one_class_whose_shares_tell_malignant_apart_is_a_warning(pictures, tmp_path, capsys):
    """A network that knows how rare melanoma is answers benign always; the threshold does the rest."""
    cautious = tiny_networks.trained()
    with torch.no_grad():
        cautious.head.weight.mul_(0.05)
        cautious.head.bias.copy_(torch.tensor([5.0, 0.0, 0.0]))
    assert convert(TinyNet_, cautious, pictures, tmp_path / "o", *LABELS, *NORMALISE) == 0
    assert "warning: " in (said := capsys.readouterr().err) and "answers 'pale' to all" in said


def test_pictures_of_one_class_cannot_judge(network, pictures, tmp_path, capsys):
    with (pictures / "truth.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dx"] == "red"]
    truth = tmp_path / "red.csv"
    truth.write_text("image_id,dx\n" + "".join(f"{row['image_id']},red\n" for row in rows))
    out = tmp_path / "o"
    status = convert(TinyNet_, network, pictures, out, *LABELS, *NORMALISE, "--verify-labels", truth, "--min-images", 2)
    error = refused(status, capsys, out)
    assert "are 'red'" in error and "--verify-labels" in error


@pytest.fixture(scope="module")
def one_output(network) -> OneOutput:
    """Dark against the rest, from the three classes' own last layer."""
    made = OneOutput()
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("head.")}
    made.load_state_dict(state, strict=False)
    weight, bias = network.state_dict()["head.weight"], network.state_dict()["head.bias"]
    with torch.no_grad():
        made.head.weight.copy_(weight[1:2] - weight[[0, 2]].mean(0, keepdim=True))
        made.head.bias.copy_(bias[1:2] - bias[[0, 2]].mean(0, keepdim=True))
    return made.eval()


@pytest.fixture(scope="module")
def two_classes(pictures, tmp_path_factory) -> Path:
    """The labels of the same pictures, dark ones malignant."""
    path = tmp_path_factory.mktemp("two") / "truth.csv"
    with (pictures / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"dark": "malignant", "pale": "benign", "red": "benign"}
    path.write_text("image_id,dx\n" + "".join(f"{row['image_id']},{names[row['dx']]}\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", [OneOutput, OneProbability])
@pytest.mark.parametrize("form", ["onnx-fp32", "onnx-int8"])
def test_one_output_becomes_two_labels_with_the_same_answers(
    kind, form, one_output, pictures, two_classes, images, tmp_path
):
    from edge_mdda.classifier import open_classifier

    out = tmp_path / "o"
    more = [*TWO, *NORMALISE, "--verify-labels", two_classes, "--format", form]
    assert convert(kind, one_output, pictures, out, *more) == 0
    classifier = open_classifier(model_in(out))
    assert list(classifier.manifest.labels) == ["benign", "malignant"]
    assert classifier.manifest.malignant == ("malignant",)
    x = torch.from_numpy((images.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = torch.sigmoid(one_output(x))[:, 0].numpy()
    found = classifier.predict(images)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-5 if form == "onnx-fp32" else 0.15)
    assert len(np.unique(found.argmax(1))) == 2


def test_an_onnx_file_with_one_output_does_the_same(one_output, pictures, two_classes, images, tmp_path):
    import warnings

    from edge_mdda.classifier import open_classifier

    path = tmp_path / "one.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(one_output, (torch.zeros(1, 3, 32, 32),), str(path), opset_version=17, dynamo=False,
                          input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}})  # fmt: skip
    out = tmp_path / "o"
    assert call("convert", path, *TWO, *NORMALISE, *EASY, "--input-size", 32, "--calibration", pictures / "images",
                "--verify-labels", two_classes, "--format", "onnx-fp32", "--out", out) == 0  # fmt: skip
    x = torch.from_numpy((images.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = torch.sigmoid(one_output(x))[:, 0].numpy()
    np.testing.assert_allclose(open_classifier(model_in(out)).predict(images)[:, 1], expected, atol=1e-5)


def test_one_output_with_other_labels_is_told_what_to_give(one_output, pictures, tmp_path, capsys):
    error = refused(
        convert(OneOutput, one_output, pictures, tmp_path / "o", *LABELS, *NORMALISE), capsys, tmp_path / "o"
    )
    assert "has one output, but there are 3 labels" in error and "--labels benign,malignant" in error


def test_two_columns_are_the_sigmoid():
    logits = np.linspace(-5, 5, 11)[:, None]
    for sigmoid in (False, True):
        given = 1 / (1 + np.exp(-logits)) if sigmoid else logits
        rows = two_columns(lambda _, given=given: given, sigmoid)(np.zeros(11))
        np.testing.assert_allclose(rows[:, 1] - rows[:, 0], logits[:, 0], atol=1e-6)
    three = np.zeros((11, 3))
    assert two_columns(lambda _: three, False)(np.zeros(11)) is three


def test_the_given_network_is_what_judges(network, images):
    """The helper that other tests compare with takes the same pixels as the conversion."""
    assert answers(network, images).argmax(1).tolist() == [k % 3 for k in range(12)]
