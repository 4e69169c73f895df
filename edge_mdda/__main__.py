"""``python -m edge_mdda`` is the ``edge-mdda`` command."""

import sys

from edge_mdda.cli.main import main

sys.exit(main())
