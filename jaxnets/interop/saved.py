"""What a file holds: parameters, state, metadata, network and preprocessing, which together predict."""

from typing import Any, NamedTuple

import jaxnets as jn
from jaxnets.core.errors import NetError
from jaxnets.core.net import Net, Params, State


class _Parts(NamedTuple):
    params: Params
    state: State
    metadata: dict[str, Any]
    net: Net | None


class Saved(_Parts):
    """The content of a file that `save` wrote; unpack it as `params, state, metadata, net`.

    Attributes:
        params: the parameters.
        state: the state, `{}` if none was saved.
        metadata: the metadata, `{}` if none was saved.
        net: the network, `None` if none was saved.
        preprocess: the preprocessing, `None` if none was saved.
    """

    preprocess: Any = None

    def __repr__(self) -> str:
        parts = [f"{jn.inspect.count_parameters(self.params):,} parameters" + (", with state" if self.state else "")]
        if self.net is not None:
            parts.append(f"net={self.net.label or 'net'}")
        if self.preprocess is not None:
            parts.append(f"preprocess={type(self.preprocess).__name__}")
        if (classes := getattr(self.preprocess, "classes", None)) is not None:
            parts.append(f"{len(classes)} classes")
        if self.metadata:
            parts.append(f"metadata {', '.join(map(str, self.metadata))}")
        return f"Saved({', '.join(parts)})"

    def predict(self, raw: Any, *, batch_size: int = 256) -> Any:
        """Return the answers for raw examples: class names, targets in their units, or else the outputs.

        Args:
            raw: a batch of what the preprocessing takes, such as a list of paths or of texts; without preprocessing the
                network's inputs.
            batch_size: the number of examples computed at once.

        Raises:
            NetError: if no network was saved, for examples that the preprocessing refuses, or outputs that are NaN.

        >>> import tempfile, jax.numpy as jnp, numpy as np, jaxnets as jn
        >>> file, net = tempfile.mkdtemp() + "/net.safetensors", jn.dense(2, use_bias=False)
        >>> x = np.array([[0.0, 8.0], [2.0, 6.0]])
        >>> preprocess = jn.data.Preprocess(jn.data.standardize(x), classes=["cat", "dog"])
        >>> jn.save(file, ({"kernel": jnp.eye(2)}, {}), net=net, preprocess=preprocess)
        >>> jn.load(file).predict(x).tolist(), jn.load(file).outputs(x).tolist()
        (['dog', 'cat'], [[-1.0, 1.0], [1.0, -1.0]])
        """
        outputs = self.outputs(raw, batch_size=batch_size)
        # The `decode` of a tokenizer takes tokens.
        decode = getattr(self.preprocess, "decode", None)
        return outputs if decode is None or isinstance(self.preprocess, jn.data.Tokenizer) else decode(outputs)

    def outputs(self, raw: Any, *, batch_size: int = 256) -> Any:
        """Return the network's outputs, such as logits, for raw examples; otherwise as `predict`."""
        if self.net is None:
            raise NetError("has no network; save it by jn.save(path, state, net=net)", label="Saved")
        x = raw if self.preprocess is None else self.preprocess(raw)
        return jn.predict(self.net, (self.params, self.state), x, batch_size=batch_size)
