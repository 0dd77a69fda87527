"""`python -m mmembed` is the `mmembed` command."""

import sys

from .cli import main

sys.exit(main())
