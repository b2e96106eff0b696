"""`python -m tinyseg` is the same as `tinyseg`."""

import sys

from tinyseg.cli import main

sys.exit(main())
