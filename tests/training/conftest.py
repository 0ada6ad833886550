"""What the tests of training share."""

import jax
import pytest


@pytest.fixture
def guarded():
    """Data moves between host and device only where the code says so: anything else costs every step."""
    with jax.transfer_guard("disallow"):
        yield
