"""An exported network behind HTTP: `python -m experiments.serving.server digits.stablehlo --port 8000`.

`POST /predict` takes {"inputs": [example, …]} and returns {"classes": [name, …], "outputs": [numbers, …]}.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import jaxnets as jn


class Batch(BaseModel):
    """The body of a request."""

    inputs: list[Any]


def make_app(
    function: Callable[[np.ndarray], Any],
    shape: Sequence[int],
    classes: Sequence[str],
    sizes: Sequence[int] = (1, 8, 32),
) -> FastAPI:
    """Return the application; batches are filled up to one of `sizes`, which are compiled here, before any request."""
    for size in sizes:
        np.asarray(function(np.zeros((size, *shape), np.float32)))
    app = FastAPI()

    @app.post("/predict")
    def predict(batch: Batch) -> dict[str, Any]:
        try:
            x = np.array(batch.inputs, np.float32)
        except (ValueError, TypeError) as error:
            raise HTTPException(422, f"expects numbers, all examples of one shape: {error}") from error
        if x.shape[1:] != tuple(shape) or not len(x) or not np.isfinite(x).all():
            raise HTTPException(422, f"expects finite numbers (batch, {', '.join(map(str, shape))}), got {x.shape}")
        if len(x) > max(sizes):
            raise HTTPException(413, f"expects at most {max(sizes)} examples, got {len(x)}")
        full = np.zeros((min(size for size in sizes if size >= len(x)), *shape), np.float32)
        full[: len(x)] = x
        outputs = np.asarray(function(full))[: len(x)]
        return {"classes": [classes[best] for best in outputs.argmax(-1)], "outputs": outputs.tolist()}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    served = jn.export.load(options.file)
    app = make_app(served, served.inputs.shape[1:], served.classes or [])
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")
