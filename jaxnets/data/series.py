"""Measured series, as they ship inside other packages: nothing is downloaded."""

from pathlib import Path

import numpy as np

from jaxnets.data.packaged import packaged
from jaxnets.errors import NetError
from jaxnets.padded import Padded


def sunspots() -> tuple[np.ndarray, np.ndarray]:
    """Return the number of sunspots of each year from 1700 to 2008, as it ships inside statsmodels.

    It rises and falls in about 11 years. Split such a series in time, and cut it into `windows` afterwards: windows
    that overlap would carry the test part into the training part.

    Returns:
        The years `(309,)` int32, and the numbers `(309,)` float32, from 0 to 190.2.

    Raises:
        ModuleNotFoundError: if statsmodels is not installed.

    National Geophysical Data Center, yearly sunspot numbers; public domain.

    >>> years, numbers = sunspots()
    >>> len(years), years[numbers.argmax()].item()
    (309, 1957)
    """
    file = packaged("statsmodels", "datasets", "sunspots", "sunspots.csv", extra="data", what="sunspot numbers")
    table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, 0].astype(np.int32), table[:, 1].astype(np.float32)


def japanese_vowels() -> tuple[tuple[Padded, np.ndarray], tuple[Padded, np.ndarray]]:
    """Return utterances of the vowels /ae/ by nine men, to be told apart by their voice, as they ship inside sktime.

    A step is 6.4 ms of sound, analysed into 12 coefficients (LPC cepstrum); an utterance has 7 to 29 steps. Both
    parts are filled up with zeros to 29.

    Returns:
        The published training part, 270 utterances, 30 of each speaker, and test part, 370: each a `Padded` of
        values `(utterances, 29, 12)` float32 and lengths int32, and speakers `(utterances,)` int32 from 0 to 8.

    Raises:
        ModuleNotFoundError: if sktime is not installed.

    Kudo, Toyama and Shimbo, "Multidimensional curve classification using passing-through regions" (1999).

    >>> (x, y), (x_test, y_test) = japanese_vowels()
    >>> x.values.shape, len(y_test), x.lengths.min().item(), x_test.lengths.max().item()
    ((270, 29, 12), 370, 7, 29)
    """
    train, test = (
        read_ts(
            packaged(
                "sktime",
                "datasets",
                "data",
                "JapaneseVowels",
                f"JapaneseVowels_{part}.ts",
                extra="data",
                what="the vowels",
            )
        )
        for part in ("TRAIN", "TEST")
    )
    time = max(len(each) for each in train[0] + test[0])

    def padded(series: list[np.ndarray], labels: list[str]) -> tuple[Padded, np.ndarray]:
        values = np.zeros((len(series), time, series[0].shape[1]), np.float32)
        for row, each in zip(values, series, strict=True):
            row[: len(each)] = each
        lengths = np.array([len(each) for each in series], np.int32)
        return Padded(values, lengths), np.array(labels, np.int32) - 1

    return padded(*train), padded(*test)


def read_ts(file: str | Path) -> tuple[list[np.ndarray], list[str]]:
    """Return the series and class labels of a `.ts` file, the text format of the UEA and UCR archives.

    Lines before `@data` describe the set. Each line after it is one example: dimensions with `:` between them, the
    label last; within a dimension, numbers with `,` between them. Missing values (`?`) and time stamps are not read.

    Args:
        file: the path.

    Returns:
        For each example its series `(steps, dimensions)` float32, and its label as written.

    Raises:
        NetError: if a line has another number of dimensions than the first, dimensions of unequal length, or
            something that is no number.

    Bagnall et al., "The UEA multivariate time series classification archive, 2018" (2018).

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "two.ts")
    >>> _ = file.write_text(chr(10).join(["@data", "1,2,3:4,5,6:yes", "7:8:no"]))
    >>> series, labels = read_ts(file)
    >>> [each.shape for each in series], labels
    ([(3, 2), (1, 2)], ['yes', 'no'])
    """
    lines = [line.strip() for line in Path(file).expanduser().read_text(encoding="utf-8").splitlines()]
    begin = next((number for number, line in enumerate(lines) if line.lower() == "@data"), None)
    if begin is None:
        raise NetError(f"expects a line '@data' in {file}, found none", label="read_ts")
    series, labels = [], []
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line:
            continue
        *dimensions, label = line.split(":")
        try:
            columns = [np.array(each.split(","), np.float32) for each in dimensions]
            series.append(np.stack(columns, 1))
        except ValueError as error:
            raise NetError(f"can't read line {number} of {file}: {error}", label="read_ts") from None
        if series[-1].shape[1] != series[0].shape[1]:
            raise NetError(
                f"expects {series[0].shape[1]} dimensions in line {number} of {file}, got {series[-1].shape[1]}",
                label="read_ts",
            )
        labels.append(label)
    return series, labels
