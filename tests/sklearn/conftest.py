"""Settings for the tests of the estimators."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def quickly_compiled():
    """Compile with hardly any optimization: each of scikit-learn's checks trains on data of another shape."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
