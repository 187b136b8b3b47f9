"""Draw what each augmentation does to a photograph: `python -m experiments.augmentations`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from jaxnets.plot.style import panels

DRAWS = 3


def main(path: Path) -> None:
    """Write the figure: a column per augmentation, a row per draw, of photographs that ship in scikit-learn."""
    from sklearn.datasets import load_sample_images

    views = (slice(0, 384, 3), slice(120, 504, 3))
    images = jnp.stack([jnp.asarray(image[views], jnp.float32) / 255 for image in load_sample_images().images[::-1]])
    # With this key all three draws of mixup and CutMix mix visibly.
    keys = jax.random.split(jax.random.key(72), DRAWS)
    alone = [
        jn.data.random_crop(96),
        jn.data.shift(24),
        jn.data.flip(),
        jn.data.rotate(30.0),
        jn.data.cutout(48),
        jn.data.noise(0.15),
    ]
    together = [jn.data.mixup(1.0), jn.data.cutmix()]
    columns = [(each.__qualname__, [each(key, images[0]) for key in keys]) for each in alone]
    mixed = [(each, [each(key, images, jnp.eye(2), jnp.ones(2)) for key in keys]) for each in together]
    columns += [(each.__qualname__, [x[0] for x, _, _ in drawn]) for each, drawn in mixed]
    columns.insert(0, ("before", [images[0], images[1]]))
    figure, grid = panels(len(columns), DRAWS, width=1.2, height=1.25)
    for number, axes in enumerate(grid):
        row, (name, drawn) = number // len(columns), columns[number % len(columns)]
        axes.set_axis_off()
        if row == 0:
            axes.set_title(name, fontsize=8)
        if row < len(drawn):
            axes.imshow(np.clip(np.asarray(drawn[row]), 0, 1))
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "augmentations.jpg"))
