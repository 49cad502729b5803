"""`python -m hf_unlearn.cli`: how a launcher starts the command line in each of its processes."""

import sys

from . import main

sys.exit(main())
