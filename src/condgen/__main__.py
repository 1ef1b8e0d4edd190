"""`python -m condgen` is the command line; `torchrun -m condgen train ...` trains on several processes."""

import sys

from condgen.cli import main

sys.exit(main())
