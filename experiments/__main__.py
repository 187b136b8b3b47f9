"""The command `python -m experiments`: runs the default study, LeNet-5 on real digits."""

import tyro

from experiments import lenet_digits


def main() -> None:
    """Read the options and run the study."""
    lenet_digits.run(
        tyro.cli(lenet_digits.Config, prog="python -m experiments", description=lenet_digits.Config.__doc__)
    )


if __name__ == "__main__":
    main()
