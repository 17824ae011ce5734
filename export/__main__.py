"""`python -m export` is `zoo export`."""

import sys

from zoo.cli import main

sys.exit(main(["export", *sys.argv[1:]]))
