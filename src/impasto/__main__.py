"""`python -m impasto` is the command `impasto`."""

import sys

from impasto.apps.cli.main import main

sys.exit(main())
