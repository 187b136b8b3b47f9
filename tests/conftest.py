"""Settings for every test: strict types and ranks, several devices, no time limit on Hypothesis."""

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)

hypothesis.settings.register_profile("jaxnets", deadline=None, max_examples=15, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("jaxnets")


@pytest.fixture(autouse=True)
def strict(request: pytest.FixtureRequest):
    """Forbid implicit promotion of dtypes and ranks, but in tests marked `promotes` (Optax's own code does)."""
    if request.node.get_closest_marker("promotes"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
