"""`python -m impasto` runs the command `impasto`."""

import sys

from impasto.apps.cli.main import main

sys.exit(main())
