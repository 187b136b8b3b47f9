"""A grid search with cross-validation: `SweepSearchCV` beside `GridSearchCV` of scikit-learn's and skorch's networks.

    python -m experiments.benchmarks.search_cv                 # 64 candidates, 5 folds, 20 epochs
    python -m experiments.benchmarks.search_cv --quick         # 4 candidates, 2 folds, 2 epochs
    python -m experiments.benchmarks.search_cv --width 16 --batch 16
    python -m experiments.benchmarks.search_cv --json FILE     # also writes the numbers into a new file

Eight learning rates by eight penalties of a multilayer perceptron 64-100-10 for scikit-learn's digits, trained by Adam
with batches of 64, unless other sizes are given, and without early stopping. Each search runs once, in a new process;
imports and reading the data are not counted, compilation and the final fit to all data are. The compilation cache is
off. The others use two processes, ours one.

All have the same folds, and the penalty's gradient λ w with the same λ, on kernels alone. Ours is Σ w² times `l2`, so
`l2` = λ / 2. Scikit-learn's is ½ `alpha` ‖w‖² over the number of examples in the batch, so `alpha` = λ times the batch
size; it is stronger only in the last, smaller batch of an epoch. Skorch's networks get PyTorch's `weight_decay` = λ in
Adam, for kernels alone. Initial values, and the order of the examples, are each library's own: scores agree only in
about.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier

from experiments.benchmarks.machine import description, versions

PROCESSES = 2
OURS, SCIKIT, SKORCH = "jaxnets SweepSearchCV", "GridSearchCV of MLPClassifier", "GridSearchCV of skorch"


def grid(quick: bool) -> tuple[list[float], list[float]]:
    """Return learning rates, and penalties λ."""
    count = 2 if quick else 8
    return np.logspace(-4, -1, count).tolist(), np.logspace(-6, -2, count).tolist()


def search(name: str, quick: bool, width: int = 100, batch: int = 64) -> Any:
    """Return a search that is ready to fit, of networks with `width` hidden neurons."""
    (rates, penalties), folds, epochs = grid(quick), 2 if quick else 5, 2 if quick else 20
    cv = StratifiedKFold(folds, shuffle=True, random_state=0)
    if name == OURS:
        import jaxnets as jn
        from jaxnets.sklearn import Classifier, SweepSearchCV

        network = Classifier(jn.models.mlp([width], num_classes=10), epochs=epochs, batch_size=batch, random_state=0)
        return SweepSearchCV(network, {"learning_rate": rates, "l2": [each / 2 for each in penalties]}, cv=cv)
    if name == SCIKIT:
        # It stops early, and warns that it has not converged, unless told not to.
        given: dict[str, Any] = {"tol": 0.0, "n_iter_no_change": epochs + 1, "max_iter": epochs, "batch_size": batch}
        network = MLPClassifier((width,), random_state=0, **given)
        choices = {"learning_rate_init": rates, "alpha": [each * batch for each in penalties]}
        return GridSearchCV(network, choices, cv=cv, n_jobs=PROCESSES)
    import torch  # pyright: ignore[reportMissingImports]
    from skorch import NeuralNetClassifier  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    layers = torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)
    given = {"criterion": torch.nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "train_split": None, "verbose": 0}
    given |= {"iterator_train__shuffle": True, "optimizer__param_groups": [("*.bias", {"weight_decay": 0.0})]}
    network = NeuralNetClassifier(torch.nn.Sequential(*layers), batch_size=batch, max_epochs=epochs, **given)
    return GridSearchCV(network, {"lr": rates, "optimizer__weight_decay": penalties}, cv=cv, n_jobs=PROCESSES)


def measure(name: str, *settings: Any) -> dict[str, Any]:
    """Return the seconds of a search, and its best score and parameters; `search` describes the settings."""
    x, y = load_digits(return_X_y=True)
    x, y = np.asarray(x, np.float32) / 16, np.asarray(y, np.int64)
    ready = search(name, *settings)
    began = time.perf_counter()
    ready.fit(x, y)
    return {
        "seconds": time.perf_counter() - began,
        "score": float(ready.best_score_),
        "params": {name: float(value) for name, value in ready.best_params_.items()},
        "fits": len(ready.cv_results_["params"]) * ready.n_splits_,
    }


def main(quick: bool, width: int, batch: int, file: Path | None) -> None:
    """Measure and print."""
    if file is not None and file.exists():
        raise SystemExit(f"{file} exists")
    names = [OURS, SCIKIT, *([SKORCH] if importlib.util.find_spec("skorch") else [])]
    found: dict[str, Any] = {}
    for name in names:
        found[name] = one = _child(name, quick, width, batch)
        ratio = one["seconds"] / found[OURS]["seconds"]
        best = ", ".join(f"{key} {value:.2g}" for key, value in one["params"].items())
        print(f"{name:<30}{one['fits']:>4} fits{one['seconds']:>9.2f} s, {ratio:6.2f} times ours", end="")
        print(f"; best score {one['score']:.4f} with {best}", flush=True)
    if file is not None:
        about = {"machine": description(), "versions": versions(), "quick": quick, "width": width, "batch": batch}
        file.write_text(json.dumps({**about, "searches": found}, indent=2) + "\n")


def _child(name: str, quick: bool, width: int, batch: int) -> dict[str, Any]:
    options = ["--one", name, "--width", str(width), "--batch", str(batch), *["--quick"] * quick]
    command = [sys.executable, "-m", "experiments.benchmarks.search_cv", *options]
    # In the processes of the search, too: scikit-learn warns of each fit that it has not converged.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 candidates, 2 folds, 2 epochs")
    parser.add_argument("--width", type=int, default=100, help="hidden neurons")
    parser.add_argument("--batch", type=int, default=64, help="examples in a batch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a new file for the numbers")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is None:
        main(asked.quick, asked.width, asked.batch, asked.json)
    else:
        print(json.dumps(measure(asked.one, asked.quick, asked.width, asked.batch)))
