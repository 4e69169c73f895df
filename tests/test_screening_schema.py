"""The JSON of a screening is what the shipped JSON Schema says, and the schema notices what is not."""

import json
from pathlib import Path

import pytest

import edge_mdda
from edge_mdda import Screener
from edge_mdda.classifier import built_in

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = json.loads((Path(edge_mdda.__file__).parent / "screening.schema.json").read_text(encoding="utf-8"))
DEMO = built_in().parent / "demo-synthetic.jpg"


@pytest.mark.parametrize(("purify", "draws"), [("both", 1), ("both", 2), ("on", 1), ("off", 1)])
def test_every_mode_prints_what_the_schema_says(purify, draws):
    with Screener(purify=purify, draws=draws) as screener:
        answer = json.loads(json.dumps(screener.screen(DEMO, 1).to_dict()))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(answer, SCHEMA)


def test_the_schema_notices_what_is_wrong():
    with Screener(purify="off") as screener:
        answer = screener.screen(DEMO).to_dict()
    for wrong in ({"advice": "benign"}, {"malignant": 1.5}, {"time": "yesterday"}, {"quality": []}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(json.dumps(answer | wrong)), SCHEMA)
