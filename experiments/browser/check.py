"""A network in a web page, run by headless Chromium: `python -m experiments.browser.check`.

It trains a small network on digits, writes it as ONNX, serves `page.html` on the loopback interface beside
onnxruntime's build for the web, and compares what the page shows with what the network gives here. It needs Chromium
and a folder where `npm install onnxruntime-web` was run:

    npm install --prefix web onnxruntime-web
    python -m experiments.browser.check web/node_modules/onnxruntime-web/dist
"""

import argparse
import functools
import html
import json
import re
import shutil
import subprocess
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import jaxnets as jn

PAGE = Path(__file__).with_name("page.html")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=60000", "--dump-dom"),
)


class _Handler(SimpleHTTPRequestHandler):
    # Browsers import a module only as JavaScript.
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def write(folder: Path, library: Path) -> np.ndarray:
    """Write what the page loads into a folder, and return the outputs that it must show."""
    x, y = jn.data.digits()
    net = jn.serial(conv=jn.conv(16, 3), relu=jax.nn.relu, pool=jn.max_pool(2), flatten=jn.flatten, out=jn.dense(10))
    preprocess = jn.data.Preprocess(jn.data.standardize(x, axis=(0, 1, 2)), classes=[*"0123456789"])
    fitted, _ = jn.fit(
        net, jn.losses.cross_entropy, optax.adam(5e-3), (preprocess(x), y), epochs=3, key=jax.random.key(0)
    )
    jn.export.onnx(net, fitted.params, fitted.state, x[:1], folder / "digits.onnx", preprocess=preprocess)
    (folder / "inputs.json").write_text(json.dumps({"shape": x[:8].shape, "inputs": x[:8].ravel().tolist()}))
    shutil.copy(PAGE, folder / "index.html")
    (folder / "ort").mkdir()
    for file in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(library / file, folder / "ort" / file)
    return np.asarray(jn.predict(net, fitted, preprocess(x[:8])))


def shown(folder: Path, browser: str) -> str:
    """Return what the page shows in the browser."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/index.html"
        with tempfile.TemporaryDirectory() as profile:
            command = [browser, *FLAGS, f"--user-data-dir={profile}", address]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
        server.shutdown()
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    return html.unescape(found.group(1)) if found else done.stdout


def main() -> None:
    """Compare, print, and fail if the outputs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="the folder dist of the package onnxruntime-web")
    parser.add_argument("--browser", default="chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        want = write(Path(name), options.library)
        text = shown(Path(name), options.browser)
    if not text.startswith("{"):
        raise SystemExit(f"the page shows {text!r}")
    got = np.reshape(json.loads(text)["outputs"], json.loads(text)["shape"])
    print("classes in the browser:", *got.argmax(-1))
    print("classes of the network:", *want.argmax(-1))
    print(f"largest difference of the outputs: {np.abs(got - want).max():.1e}")
    if not np.allclose(got, want, rtol=1e-4, atol=1e-4):
        raise SystemExit("the outputs differ")


if __name__ == "__main__":
    main()
