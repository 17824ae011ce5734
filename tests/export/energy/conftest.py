import pytest
from support.networks import lively

from zoo.danet import DANet


@pytest.fixture(scope="session")
def tiny() -> DANet:
    return lively("danet20-t2.fmnist", 20, widths=(4, 6, 8))
