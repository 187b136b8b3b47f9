"""onnxruntime, on the network that PyTorch exports."""
# pyright: reportMissingImports=false

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from experiments.benchmarks.peers import in_pytorch
from experiments.benchmarks.work import Contestant, Work


def evaluate(work: Work) -> Contestant:
    """Return the contestant."""
    net = in_pytorch.network(work.layers, work.shape).eval()
    # (examples, channels, *spatial)
    x = np.moveaxis(work.x, -1, 1).copy()
    parts = [x[place : place + work.batch_size] for place in range(0, len(x), work.batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        # The exporter prints its steps.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(net, (torch.from_numpy(parts[0]),), file, input_names=["x"], dynamo=True)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def turn() -> None:
        for part in parts:
            session.run(None, {"x": part})

    return in_pytorch.contestant(work, turn)
