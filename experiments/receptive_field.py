"""Draw the receptive field of one unit of a ResNet on a photograph: `python -m experiments.receptive_field`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxnets as jn


def main(path: Path) -> None:
    """Write the figure of a unit of `layer2`, with the photograph of a flower that ships in scikit-learn."""
    from sklearn.datasets import load_sample_image

    image = jnp.asarray(load_sample_image("flower.jpg")[None, :384:2, 120:504:2], jnp.float32) / 255
    net = jn.models.resnet18().upto("layer2")
    params, state = net.init(jax.random.key(0), image)
    unit = (12, 6)
    counts = jn.inspect.effective_field(net, params, state, image, *unit)
    figure = jn.plot.draw_receptive_field(image, jn.inspect.receptive_field(net, image), *unit, effective=counts)
    figure.savefig(path)
    print(f"written: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "receptive-field.png"))
