"""`python -m hf_unlearn.cli`, which is how a launcher starts the command line on each of its processes."""

import sys

from . import main

sys.exit(main())
