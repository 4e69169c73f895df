"""``python -m edge_mdda`` is the ``edge-mdda`` command."""

import sys

from edge_mdda.cli import main

sys.exit(main())
