"""Writing text by a language model with its cache, the most probable token each time: ours by `jn.decoding.sample`."""

from collections.abc import Callable, Sequence
from functools import cache, partial

from experiments.benchmarks import data, networks, ours
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows.row import OURS, Makers, Row
from experiments.benchmarks.work import Work

PEERS_OF_DECODING = ("transformers", "Flax NNX", "Flax NNX, scanned")
PROMPT, TOKENS = 16, 256


def texts(work: Callable[[], Work], names: Sequence[str]) -> Makers:
    """Return us and the peers."""
    work = cache(work)
    peers = {name: lambda peer=PEERS[name]: peer.call("decode", work()) for name in names}
    return {OURS: lambda: ours.decode(work()), **peers}


def gpt(batch: int) -> Work:
    """Return some texts to continue."""
    layers = networks.gpt(PROMPT + TOKENS)
    return Work(layers, *data.text(batch, PROMPT), batch, net=partial(ours.single, layers), tokens=TOKENS)


def _row(batch: int) -> Row:
    title = f"GPT of 6 blocks, {TOKENS} tokens after {PROMPT}, batch {batch}, token"
    return Row(f"decode-{batch}", title, "token", partial(texts, partial(gpt, batch)), PEERS_OF_DECODING, quick=0)


ROWS = (_row(1), _row(16))
