"""Requests per second of one network behind the same HTTP server: `python -m experiments.benchmarks.serving`.

    python -m experiments.benchmarks.serving                        # measures and prints
    python -m experiments.benchmarks.serving --json FILE            # also writes the numbers into a new file
    python -m experiments.benchmarks.serving --page FILE            # writes the table of a file into docs/deploy.md

The network is a small CNN for digits of 28 × 28 pixels, with the same weights as StableHLO (JAX), in onnxruntime, and
in PyTorch. Each contestant runs `experiments/serving/server.py` in a process of its own on the loopback interface. A
client with a few connections sends batches of 1 and of 32 as JSON; contestants take turns, and must give the same
outputs.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import socket
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import jax
import numpy as np
import uvicorn

import jaxnets as jn
from experiments.benchmarks.machine import description
from experiments.serving.server import make_app

SHAPE, CLASSES, SIZES = (28, 28, 1), tuple("0123456789"), (1, 32)
PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
BEGIN, END = "<!-- begin: serving -->", "<!-- end: serving -->"
PACKAGES = "jax", "onnxruntime", "torch", "fastapi", "uvicorn"
NAMES = {"jaxnets": "StableHLO, JAX", "onnx": "ONNX, onnxruntime", "torch": "PyTorch, eager"}


def write_files(folder: Path) -> None:
    """Write the network in three formats: `net.stablehlo`, `net.onnx`, and a state dict for PyTorch, `net.npz`."""
    net = jn.models.cnn((32, 64), 10)
    x = np.zeros((1, *SHAPE), np.float32)
    params, state = net.init(jax.random.key(0), x)
    jn.export.stablehlo(net, params, state, x, folder / "net.stablehlo", platforms=["cpu"])
    jn.export.onnx(net, params, state, x, folder / "net.onnx")
    tensors: dict[str, Any] = jn.interop.to_torch(net, params, state, x)
    np.savez(folder / "net.npz", **tensors)


def function_of(name: str, folder: Path) -> Callable[[np.ndarray], Any]:
    """Return a contestant's function of a batch `(batch, 28, 28, 1)`."""
    if name == "jaxnets":
        return jn.export.load(folder / "net.stablehlo")
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"x": x})[0]
    return _in_torch(folder / "net.npz")


def _in_torch(file: Path) -> Callable[[np.ndarray], Any]:
    import torch
    from torch import nn

    def named(**layers: Any) -> Any:
        return nn.Sequential(OrderedDict(layers))

    def block(number: int, channels: int, features: int) -> dict[str, Any]:
        conv = nn.Conv2d(channels, features, 3, padding=1)
        return {f"conv{number}": conv, f"act{number}": nn.ReLU(), f"pool{number}": nn.MaxPool2d(2)}

    classifier = named(flatten=nn.Flatten(), fc1=nn.Linear(3136, 128), act1=nn.ReLU(), fc2=nn.Linear(128, 10))
    module = named(features=named(**block(1, 1, 32), **block(2, 32, 64)), classifier=classifier).eval()
    with np.load(file) as weights:
        module.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})

    def function(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            # (batch, 1, height, width)
            return module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()

    return function


def _serve(name: str, folder: Path, port: int) -> None:
    app = make_app(function_of(name, folder), SHAPE, CLASSES, SIZES)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


@contextmanager
def server(name: str, folder: Path) -> Iterator[str]:
    """Run a contestant's server in a process of its own, and return its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(name, folder, port), daemon=True)
    process.start()
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if not process.is_alive():
                raise RuntimeError(f"the server of {name} ended with status {process.exitcode}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        process.terminate()
        process.join()


def turn(address: str, batch: int, requests: int, connections: int) -> tuple[float, np.ndarray]:
    """Send requests over several connections; return the seconds they took and the outputs of the last."""
    x = np.random.default_rng(0).random((batch, *SHAPE)).round(3)
    body = json.dumps({"inputs": x.tolist()}).encode()

    def send(count: int) -> Any:
        with httpx.Client(headers={"content-type": "application/json"}, timeout=60) as client:
            return [client.post(address, content=body).raise_for_status() for _ in range(count)][-1]

    counts = [requests // connections] * connections
    with ThreadPoolExecutor(connections) as pool:
        began = time.perf_counter()
        answers = [*pool.map(send, counts)]
        seconds = time.perf_counter() - began
    return seconds, np.array(answers[-1].json()["outputs"])


def measured(requests: int, rounds: int, connections: int) -> dict[str, Any]:
    """Return requests per second, in each round, by batch size and contestant; the first round does not count."""
    rates: dict[str, dict[str, list[float]]] = {str(batch): {name: [] for name in NAMES} for batch in SIZES}
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        write_files(folder := Path(name))
        addresses = {name: servers.enter_context(server(name, folder)) for name in NAMES}
        for number, batch in itertools.product(range(rounds + 1), SIZES):
            count = max(connections, requests // (1 if batch == 1 else 8) // connections * connections)
            outputs = {}
            for name, address in addresses.items():
                seconds, outputs[name] = turn(address, batch, count, connections)
                if number:
                    rates[str(batch)][name].append(count / seconds)
            for each in outputs.values():
                np.testing.assert_allclose(each, outputs["jaxnets"], rtol=1e-4, atol=1e-4)
    return {"machine": description(), "connections": connections, "requests_per_second": rates}


def table(found: Mapping[str, Any]) -> str:
    """Return the numbers of a file as a table in Markdown."""
    machine, packages = found["machine"], ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        f"{machine['processor']}, {machine['cores']} cores; {packages}.",
        f"From `{found['command']}`; medians of {found['rounds']} rounds, {found['connections']} connections.",
        "",
        "| the function behind the server | " + " | ".join(f"batch {n}, requests/s" for n in SIZES) + " |",
        "| --- |" + " --: |" * len(SIZES),
    ]
    for name, shown in NAMES.items():
        rates = (np.median(found["requests_per_second"][str(batch)][name]) for batch in SIZES)
        lines.append(f"| {shown} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")
    return "\n".join(lines)


def page_with(text: str, found: Mapping[str, Any]) -> str:
    """Return the page with the table between its markers."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Measure, or write the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=800, help="of batch 1 in a turn; of batch 32 an eighth")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--json", type=Path, help="a new file for the numbers")
    parser.add_argument("--page", type=Path, help="a file of numbers, whose table is written into docs/deploy.md")
    options = parser.parse_args()
    if options.page:
        found = json.loads(options.page.read_text(encoding="utf-8"))
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
        return
    found = measured(options.requests, options.rounds, options.connections)
    found["command"] = " ".join(["python -m experiments.benchmarks.serving", *sys.argv[1:]])
    found["versions"] = {name: version(name) for name in PACKAGES}
    found["rounds"] = options.rounds
    print(table(found))
    if options.json:
        with options.json.open("x", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
