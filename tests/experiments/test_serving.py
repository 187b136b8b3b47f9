"""The server: it answers as the network does, fills batches up, and says what is wrong with a request."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from experiments.benchmarks import serving
from experiments.serving.server import make_app
from tests.oracle import floats

X = floats(3, 2, 2)
calls: list[tuple[int, ...]] = []


def function(x: np.ndarray) -> np.ndarray:
    calls.append(x.shape)
    return x.reshape(len(x), 4)


@pytest.fixture
def client() -> TestClient:
    calls.clear()
    return TestClient(make_app(function, (2, 2), "abcd", (1, 4)))


def test_a_batch_is_filled_up_to_a_size_that_was_compiled(client: TestClient):
    assert calls == [(1, 2, 2), (4, 2, 2)]
    answer = client.post("/predict", json={"inputs": X.tolist()})
    assert calls[2:] == [(4, 2, 2)]
    np.testing.assert_allclose(answer.json()["outputs"], X.reshape(3, 4), rtol=1e-6)
    assert answer.json()["classes"] == ["abcd"[best] for best in X.reshape(3, 4).argmax(1)]
    client.post("/predict", json={"inputs": X[:1].tolist()})
    assert calls[3:] == [(1, 2, 2)]


WRONG: dict[str, tuple[bytes, int, str]] = {
    "shape": (b'{"inputs": [[1, 2]]}', 422, "expects finite numbers (batch, 2, 2), got (1, 2)"),
    "ragged": (b'{"inputs": [[[1, 2], [3]]]}', 422, "expects numbers, all examples of one shape"),
    "text": (b'{"inputs": [[["a", 1], [2, 3]]]}', 422, "expects numbers"),
    "NaN": (b'{"inputs": [[[NaN, 1], [2, 3]]]}', 422, "expects finite numbers"),
    "none": (b'{"inputs": []}', 422, "got (0,)"),
    "many": (json.dumps({"inputs": np.zeros((5, 2, 2)).tolist()}).encode(), 413, "expects at most 4 examples, got 5"),
    "no JSON": (b"{", 422, "JSON decode error"),
    "no inputs": (b'{"x": 1}', 422, "Field required"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_answered_in_json(name: str, client: TestClient):
    body, status, message = WRONG[name]
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert message in str(answer.json()["detail"])


@pytest.mark.slow
@pytest.mark.promotes
def test_contestants_answer_alike_over_the_loopback(tmp_path: Path):
    serving.write_files(tmp_path)
    with serving.server("jaxnets", tmp_path) as address:
        seconds, outputs = serving.turn(address, 3, 4, 2)
        assert httpx.post(address, json={"inputs": 3}).status_code == 422
    assert seconds > 0
    x = np.random.default_rng(0).random((3, *serving.SHAPE)).round(3).astype(np.float32)
    for name in serving.NAMES:
        np.testing.assert_allclose(serving.function_of(name, tmp_path)(x), outputs, rtol=1e-4, atol=1e-5)


def test_the_table_stands_on_the_page():
    versions = {"jax": "1.0"}
    rates: Any = {str(batch): {name: [10.0, 1200.0, 30.0] for name in serving.NAMES} for batch in serving.SIZES}
    found = {"machine": {"processor": "P", "cores": 2}, "versions": versions, "command": "c", "rounds": 3}
    page = serving.page_with(serving.PAGE.read_text(), found | {"connections": 4, "requests_per_second": rates})
    assert "P, 2 cores; jax 1.0." in page
    assert "| ONNX, onnxruntime | 30 | 30 |" in page
    assert page == serving.page_with(page, found | {"connections": 4, "requests_per_second": rates})
    for file in (Path(serving.__file__).parent / "results" / "serving").glob("*.json"):
        measured = json.loads(file.read_text(encoding="utf-8"))
        assert serving.table(measured) in serving.PAGE.read_text(encoding="utf-8")
    assert page.count(serving.BEGIN) == page.count(serving.END) == 1
