"""``python run_tflite.py MODEL PICTURES.npy``: answers as JSON, in whatever TFLite runtime this interpreter has.

Run by another interpreter than the tests', one with ``tflite-runtime`` and NumPy 1 and nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from edge_mdda.classifier import ModelError, open_classifier

try:
    classifier = open_classifier(sys.argv[1])
    rows = classifier.predict(np.load(sys.argv[2]))
except ModelError as error:
    sys.exit(str(error))
print(json.dumps({"runtime": classifier.runtime, "numpy": np.__version__, "rows": rows.tolist()}))
