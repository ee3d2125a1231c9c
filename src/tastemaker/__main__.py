"""`python -m tastemaker` is the command `tastemaker`."""

import sys

from .cli.main import main

sys.exit(main())
