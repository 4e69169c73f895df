"""Validation of the parameters: every bad value is refused by name, every good one is frozen."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from edge_mdda.errors import EdgeMddaError, ParamsError
from edge_mdda.mdda.params import PRESETS, MddaParams
from edge_mdda.mdda.purifier import Purifier

NAN, INF = math.nan, math.inf

BAD = {
    "scales": [
        (),
        (2, 0.5),
        (1, 2),
        (1, 1),
        (0.5, 0.25),
        (2,),
        (4, 2, 1),
        (1, 0.5, 0.25, 0.125, 0.0625),
        (2, 1, 0.5, 0.2),
        (1, NAN),
        (1, INF),
        (2, True),
        (2, None),
        ("2", "1"),
        "2, 1",
        1.0,
        None,
        {2, 1},
        (-1,),
        (1, 0),
    ],
    "n_blocks": [0, 17, -1, 2.0, True, "2", None, (2,)],
    "sigma": [-0.1, 64.1, NAN, INF, "5", None, True, (5,), (5, 5, 5), (5, -1), (5, NAN), (5, "5"), (5, True), ()],
    "lam": [
        -0.1,
        1e-50,
        1e-18,
        0.0099,
        64.1,
        NAN,
        INF,
        "5",
        None,
        True,
        (5,),
        (5, 5, 5),
        (5, 5, 5, 5, 5),
        (5, 5, -1, 5),
        (5, 5, 5, NAN),
        (),
    ],
    "iterations": [0, 201, -7, 7.0, NAN, "7", None, True, (7,), (7, 7, 7), (7, 7, 0, 7), (7, 7, 7.5, 7), ()],
    "aggregation": [
        (),
        (1,),
        (0.8, 0.1),
        (0.7, 0.1, 0.1, 0.1),
        (0, 0.5, 0.5),
        (0.8, -0.1, 0.1),
        (-1, 1, 1),
        (NAN, 0, 0),
        (1, INF, 0),
        (1, True, 0),
        "111",
        0.8,
        None,
    ],
    "output_weights": [
        (),
        (1, 1, 1),
        (1, 1, 1, 1, 1),
        (0, 0, 0, 0),
        (1, 1, 1, -0.1),
        (1, 1, 1, NAN),
        (1, 1, 1, INF),
        (1, 1, 1, "1"),
        "1111",
        1.0,
        None,
    ],
    "smoothing": [-0.01, 1.01, NAN, INF, "0", None, True, (0.5,)],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in BAD for value in BAD[field]], ids=repr)
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(ParamsError, match=rf"^{field}: ") as caught:
        MddaParams(**{field: value})
    assert "\n" not in str(caught.value)


def test_every_field_has_bad_examples():
    assert set(BAD) == {field.name for field in dataclasses.fields(MddaParams)}


def test_the_error_is_one_that_commands_print():
    assert issubclass(ParamsError, EdgeMddaError)
    assert issubclass(ParamsError, ValueError)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_blocks", 1),
        ("n_blocks", 16),
        ("sigma", 0),
        ("sigma", 64.0),
        ("sigma", (0.0, 64)),
        ("lam", 0.0),
        ("lam", 64),
        ("lam", (0, 1, 2.5, 64)),
        ("iterations", 1),
        ("iterations", 200),
        ("iterations", (1, 200, 3, 4)),
        ("aggregation", (1, 0, 0)),
        ("aggregation", (1e-6, 1, 1)),
        ("output_weights", (0, 0, 0, 1e-6)),
        ("smoothing", 0),
        ("smoothing", 1),
        ("sigma", np.float64(3.5)),
    ],
    ids=repr,
)
def test_the_ends_of_every_range_are_accepted(field, value):
    assert getattr(MddaParams(**{field: value}), field) == value


@pytest.mark.parametrize("n", range(1, 6))
@pytest.mark.parametrize("first", [0, 1])
def test_every_chain_of_scales_with_1_in_it_is_accepted(first, n):
    scales = (2.0, 1.0, 0.5, 0.25, 0.125)[first : first + n]
    if 1.0 not in scales:
        with pytest.raises(ParamsError, match=r"^scales: "):
            MddaParams(scales=scales, output_weights=(1,) * len(scales))
    else:
        assert MddaParams(scales=scales, output_weights=(1,) * len(scales)).scales == scales


def test_lists_become_tuples():
    params = MddaParams(
        scales=[2, 1, 0.5, 0.25],
        sigma=[3, 4.0],
        lam=[1.0, 2.0, 3.0, 4],
        iterations=[5, 6, 7, 8],
        aggregation=[1, 0, 0],
        output_weights=[1, 2, 3, 4],
    )
    for field in ("scales", "sigma", "lam", "iterations", "aggregation", "output_weights"):
        assert type(getattr(params, field)) is tuple
    assert params == MddaParams(
        sigma=(3, 4), lam=(1, 2, 3, 4), iterations=(5, 6, 7, 8), aggregation=(1, 0, 0), output_weights=(1, 2, 3, 4)
    )
    assert hash(params) == hash(dataclasses.replace(params))


def test_a_list_changed_later_changes_nothing():
    lam = [1.0, 2.0, 3.0, 4.0]
    params = MddaParams(lam=lam)
    lam[0] = 99.0
    assert params.scale_lam(0) == 1.0


def test_params_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MddaParams().sigma = 3.0


def test_replace_validates_anew():
    with pytest.raises(ParamsError, match=r"^sigma: "):
        dataclasses.replace(MddaParams(n_blocks=2, sigma=(1.0, 2.0)), n_blocks=3)
    with pytest.raises(ParamsError, match=r"^output_weights: "):
        dataclasses.replace(MddaParams(), scales=(1.0,))


@pytest.mark.parametrize(
    "params",
    [*PRESETS.values(), MddaParams(n_blocks=3, sigma=[1, 2, 3], lam=[1, 2, 3, 4], iterations=[1, 2, 3, 4])],
)
def test_json_and_back(params):
    plain = params.to_dict()
    assert set(plain) == {field.name for field in dataclasses.fields(MddaParams)}
    assert MddaParams(**json.loads(json.dumps(plain))) == params


def test_the_presets_grow_stronger():
    assert list(PRESETS) == ["mild", "balanced", "strong"]
    strengths = [params.block_sigma(0) * params.n_blocks for params in PRESETS.values()]
    assert strengths == sorted(set(strengths))
    assert Purifier(16, 16).params == PRESETS["balanced"]  # what runs where nobody chooses


def test_one_value_stands_for_all_and_several_for_each():
    one = MddaParams(n_blocks=3, sigma=4, lam=6, iterations=8)
    assert [one.block_sigma(b) for b in range(3)] == [4.0] * 3
    assert [one.scale_lam(s) for s in range(4)] == [6.0] * 4
    assert [one.scale_iterations(s) for s in range(4)] == [8] * 4
    each = MddaParams(n_blocks=2, sigma=(4, 3), lam=(6, 5, 4, 3), iterations=(8, 7, 6, 5))
    assert [each.block_sigma(b) for b in range(2)] == [4.0, 3.0]
    assert [each.scale_lam(s) for s in range(4)] == [6.0, 5.0, 4.0, 3.0]
    assert [each.scale_iterations(s) for s in range(4)] == [8, 7, 6, 5]
    assert all(type(value) is float for value in (one.block_sigma(0), each.scale_lam(3)))


@pytest.mark.parametrize("aggregation", [(0.8, 0.1, 0.1), (1, 0, 0), (2, 3, 5), (1e-3, 1, 0), (1, 0, 1e6)])
@pytest.mark.parametrize("n", range(1, 6))
def test_neighbour_weights_sum_to_one_and_skip_what_is_not_there(n, aggregation):
    scales = (2.0, 1.0, 0.5, 0.25, 0.125)[:n] if n > 1 else (1.0,)
    params = MddaParams(scales=scales, output_weights=(1,) * n, aggregation=aggregation)
    for scale in range(n):
        finer, itself, coarser = params.neighbour_weights(scale)
        assert finer + itself + coarser == pytest.approx(1, abs=1e-12)
        assert itself > 0
        # Each weight keeps its ratio to the scale's own, and is zero where there is no neighbour.
        assert finer / itself == pytest.approx(aggregation[1] / aggregation[0] if scale > 0 else 0)
        assert coarser / itself == pytest.approx(aggregation[2] / aggregation[0] if scale < n - 1 else 0)
