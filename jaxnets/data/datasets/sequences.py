"""Generated sequences that require a recurrent network to remember."""

import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as


def adding(examples: int, length: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generate the adding problem: sequences of numbers, two of them marked, whose sum is the target.

    The numbers are uniform in [0, 1). One mark is in the first half of the sequence, one in the second. Always
    predicting 1 has a mean squared error of 1/6 ≈ 0.167, twice the variance of a uniform number; a lower error
    requires memory.

    Args:
        examples: the number of sequences, at least 1.
        length: the number of steps in a sequence, at least 2.
        seed: the same seed gives the same sequences on every machine.

    Returns:
        `(examples, length, 2)` float32, number and mark (0 or 1) of each step, and sums `(examples,)` float32.

    Raises:
        NetError: if `examples` < 1 or `length` < 2.

    Hochreiter and Schmidhuber, "Long short-term memory" (1997), Section 5.4, in the form of Arjovsky, Shah and
    Bengio, "Unitary evolution recurrent neural networks" (2016), Section 5.2.

    >>> x, y = adding(3, 10)
    >>> x.shape, abs((x[..., 0] * x[..., 1]).sum(1) - y).max().item() < 1e-6
    ((3, 10, 2), True)
    """
    with labeled_as("adding"):
        check_count("examples", examples)
        if length < 2:
            raise NetError(f"expects a length of at least 2, got {length}")
    random = np.random.default_rng(seed)
    numbers = random.random((examples, length), np.float32)
    rows = np.arange(examples)
    first = random.integers(0, length // 2, examples)
    second = random.integers(length // 2, length, examples)
    marks = np.zeros_like(numbers)
    marks[rows, first] = marks[rows, second] = 1
    return np.stack([numbers, marks], 2), numbers[rows, first] + numbers[rows, second]


def copy_memory(
    examples: int, delay: int, *, symbols: int = 8, remembered: int = 10, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Generate the copy problem: symbols to repeat in order after a delay.

    The input has the symbols, then `delay` - 1 blanks, a start signal, and `remembered` blanks. The target is blank
    until the last `remembered` steps, which are the symbols. With T = `delay`, predicting blanks and then guessing has
    a cross-entropy of remembered · ln(symbols) / (T + 2 remembered) per step; a lower value requires memory.

    Args:
        examples: the number of sequences, at least 1.
        delay: the number of steps between the last symbol and the first answer, at least 1.
        symbols: the number of different symbols, at least 1, coded 0 … symbols - 1; the blank is coded `symbols`, the
            start signal `symbols + 1`.
        remembered: the number of symbols to remember, at least 1.
        seed: the same seed gives the same sequences on every machine.

    Returns:
        Codes of input and target, `(examples, delay + 2 remembered)` int32 each, from 0 to `symbols + 1`.

    Raises:
        NetError: if a number is less than 1.

    Hochreiter and Schmidhuber, "Long short-term memory" (1997), in the form of Arjovsky, Shah and Bengio, "Unitary
    evolution recurrent neural networks" (2016), Section 5.1.

    >>> x, y = copy_memory(1, 3, symbols=2, remembered=2)
    >>> print(x, y)
    [[1 1 2 2 3 2 2]] [[2 2 2 2 2 1 1]]
    """
    with labeled_as("copy_memory"):
        for name, value in (("examples", examples), ("delay", delay), ("symbols", symbols), ("remembered", remembered)):
            check_count(name, value)
    shown = np.random.default_rng(seed).integers(0, symbols, (examples, remembered), np.int32)
    x = np.full((examples, delay + 2 * remembered), symbols, np.int32)
    y = x.copy()
    x[:, :remembered] = y[:, -remembered:] = shown
    x[:, remembered + delay - 1] = symbols + 1
    return x, y
