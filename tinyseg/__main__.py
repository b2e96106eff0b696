"""`python -m tinyseg` is the same as `tinyseg`."""

import sys

from tinyseg.cli.parser import main

sys.exit(main())
