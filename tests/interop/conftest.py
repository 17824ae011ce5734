"""These tests need the other simulators (`make interop`). Without them nothing is collected: asked for it, pytest exits with 5."""

from importlib.util import find_spec

collect_ignore = [] if all(map(find_spec, ("norse", "spikingjelly", "nirtorch"))) else ["test_interop.py"]
