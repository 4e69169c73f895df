"""``edge-mdda verify``: are models what their manifests say, and signed by a trusted key?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK
from edge_mdda.console import complain, printable

EXAMPLES = """\
examples:
  edge-mdda verify model.onnx --trusted-keys release.key.pub
  EDGE_MDDA_TRUSTED_KEYS=release.key.pub edge-mdda verify --json *.tflite

The keys are also looked for in EDGE_MDDA_TRUSTED_KEYS, in trusted-keys in the configuration folder edge-mdda,
and in /etc/edge-mdda/trusted-keys; wherever keys are set, 'screen' opens only models that they signed.
exit status: 0 every model is whole and signed by a trusted key, 1 at least one is not, 2 wrong usage
"""


def add_command(commands: Any) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    verify = commands.add_parser(
        "verify",
        help="check models, their manifests and signatures",
        description="Check that models are what their manifests say, and that a trusted key signed these.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="files or built-in names (standard)")
    verify.add_argument("--trusted-keys", type=Path, metavar="FILE", help="public keys, or a folder of *.pub")
    verify.add_argument("--json", action="store_true", help="one JSON object a line")
    verify.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from edge_mdda.classifier import model_path
    from edge_mdda.classifier.signature import trusted_keys
    from edge_mdda.classifier.verify import verify_model

    keys = trusted_keys(args.trusted_keys)
    failed = 0
    for model in map(Path, map(model_path, args.models or [None])):
        verdict = verify_model(model, keys)
        failed += not verdict.ok
        if args.json:
            print(json.dumps(verdict.to_dict()), flush=True)
        elif verdict.ok:
            print(f"{printable(str(model))}: {verdict.text}")
        else:
            complain(str(model), verdict.text)
    return EXIT_FAILED if failed else EXIT_OK
