"""Small tables of measurements, as they ship inside scikit-learn, in the units they were measured in.

Standardise them by the statistics of the training part alone: scikit-learn's own `load_diabetes` divides by those of
the whole, test part too.
"""

import gzip
from pathlib import Path

import numpy as np

from jaxnets.data.packaged import packaged


def iris() -> tuple[np.ndarray, np.ndarray]:
    """Return 150 irises of three species, 50 each: sepal length and width, petal length and width in cm.

    Returns:
        Measurements `(150, 4)` float32, and the species `(150,)` int32: 0 setosa, 1 versicolor, 2 virginica, in
        this order.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Fisher, "The use of multiple measurements in taxonomic problems" (1936).

    >>> x, y = iris()
    >>> x.shape, y[::50].tolist()
    ((150, 4), [0, 1, 2])
    """
    table = np.loadtxt(_file("iris.csv"), delimiter=",", skiprows=1)
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int32)


def wine() -> tuple[np.ndarray, np.ndarray]:
    """Return chemical analyses of 178 wines from three cultivars of one region of Italy.

    The columns: alcohol, malic acid, ash, alcalinity of ash, magnesium, total phenols, flavanoids, nonflavanoid
    phenols, proanthocyanins, colour intensity, hue, OD280/OD315 of diluted wines, proline. They differ in scale by
    a factor of thousands: standardise them.

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
    table = np.loadtxt(_file("wine_data.csv"), delimiter=",", skiprows=1)
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int32)


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Return ten measurements of 442 patients with diabetes, and how far the disease went within a year.

    The columns: age in years, sex (1 or 2), body mass index in kg/m², mean blood pressure in mmHg, and six values
    of the blood serum: total cholesterol, LDL, HDL, total/HDL, log of triglycerides, blood sugar.

    Returns:
        Measurements `(442, 10)` float32, and the progression `(442,)` float32, from 25 to 346.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Efron, Hastie, Johnstone and Tibshirani, "Least angle regression" (2004), Section 1.

    >>> x, y = diabetes()
    >>> x.shape, y.min().item(), y.max().item()
    ((442, 10), 25.0, 346.0)
    """
    with (
        gzip.open(_file("diabetes_data_raw.csv.gz"), "rt") as rows,
        gzip.open(_file("diabetes_target.csv.gz"), "rt") as values,
    ):
        return np.loadtxt(rows).astype(np.float32), np.loadtxt(values).astype(np.float32)


def _file(name: str) -> Path:
    return packaged("sklearn", "datasets", "data", name, extra="data", what="these measurements")
