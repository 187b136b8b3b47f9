"""Every library builds the network that was described, and takes its turn."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.benchmarks import data, networks, ours
from experiments.benchmarks.architecture import Conv, Dense, Mean, Norm, Pool, Relu, Residual, Transformer
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import decoding, training
from experiments.benchmarks.work import Contestant, Unsuited, Work

pytestmark = pytest.mark.promotes
BLOCK = Residual((Conv(8, 3, 2, 1, False), Norm(), Relu(), Conv(8, 3, 1, 1, False), Norm()), (Conv(8, 1, 2), Norm()))
LAYERS = (
    Conv(4, 3, padding=1),
    Relu(),
    Pool(2, 2),
    BLOCK,
    Residual((Conv(8, 3, 1, 1),)),
    Pool(3, 2, 1),
    Mean(),
    Dense(3),
)
WORKS = {
    "residual": Work(LAYERS, data.noise(5, 16, 16, 2), data.classes(5, 3), 2),
    "autoencoder": Work(networks.autoencoder(8, 3, 5, code=2), data.noise(4, 8, 8, 1), data.noise(4, 8, 8, 1), 2),
    "lstm": Work(networks.sequence("lstm", 5, 3), data.noise(4, 6, 2), data.classes(4, 3), 2),
    "gpt": Work((Transformer(5, 6, 1, 2, 4),), data.classes(12, 5).reshape(3, 4), data.classes(12, 5).reshape(3, 4), 2),
    "gru": Work(networks.sequence("gru", 5), data.noise(4, 6, 2), data.noise(4, 6, 5), 2, "sgd"),
}
INSTALLED = [name for name in training.EVERYBODY if name in PEERS and PEERS[name].installed and ", " not in name]


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("name", [*INSTALLED, "jaxnets"])
@pytest.mark.slow_cases(
    *(f"{name}-{work}" for name in INSTALLED for work in ("residual", "autoencoder", "lstm", "gpt")),
    *(f"{name}-gru" for name in INSTALLED if name not in ("Equinox", "PyTorch")),
    *("jaxnets-residual", "jaxnets-autoencoder", "jaxnets-lstm"),
)
def test_everybody_builds_the_network_described(name: str, work: str):
    if (name, work) == ("Haiku", "gpt"):
        with pytest.raises(Unsuited, match="no language model"):
            PEERS[name].call("train", WORKS[work])
        return
    made = ours.train(WORKS[work], scan=True) if name == "jaxnets" else PEERS[name].call("train", WORKS[work])
    made.check()
    other = replace(made, work=replace(made.work, layers=(*made.work.layers, Dense(2))))
    with pytest.raises(ValueError, match=r"expects .* parameters, got"):
        other.check()


@pytest.mark.parametrize("name", ["jaxnets", *(each for each in decoding.PEERS_OF_DECODING if PEERS[each].installed)])
@pytest.mark.slow_cases(*decoding.PEERS_OF_DECODING)
def test_texts_are_continued(name: str):
    work = replace(WORKS["gpt"], tokens=2, batch_size=3)
    made = ours.decode(work) if name == "jaxnets" else PEERS[name].call("decode", work)
    made.check()
    made.turn()


def test_we_evaluate_every_batch_folded_and_not():
    work = replace(WORKS["residual"], x=WORKS["residual"].x[:4])
    for folded in (True, False):
        made = ours.evaluate(work, folded=folded)
        made.check()
        made.turn()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ("PyTorch", "onnxruntime") if PEERS[name].installed])
def test_runtimes_evaluate_every_batch(name: str):
    made = PEERS[name].call("evaluate", replace(WORKS["residual"], x=WORKS["residual"].x[:4]))
    made.check()
    made.turn()


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.slow_cases(*(set(INSTALLED) - {"PyTorch"}))
def test_everybody_takes_turns(name: str):
    """The last batch of an epoch is smaller."""
    work = Work(networks.mlp(4, classes=3), data.noise(5, 6), data.classes(5, 3), 2, epochs=2)
    assert work.steps == 6
    made = PEERS[name].call("train", work)
    made.turn()
    made.turn()


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.slow_cases("True")
def test_we_take_turns_both_ways(scan: bool):
    work = Work(networks.mlp(4, classes=3), data.noise(5, 6), data.classes(5, 3), 2, epochs=2)
    made = ours.train(work, scan=scan)
    made.turn()
    made.turn()
    products = 2 * (2 * (6 * 4 + 4 * 3) + 4 * 3)  # forward, for the kernels, and back through the second layer
    assert products < ours.flops(work) / (2 * 5) < 1.2 * products


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["jaxnets", *(name for name in INSTALLED if name in ("Flax Linen", "Equinox", "PyTorch"))]
)
def test_sweeps_train_a_trial_for_each_rate(name: str):
    work, rates = (
        Work(networks.mlp(4, classes=3), data.noise(4, 6), data.classes(4, 3), 2),
        np.array([0.1, 0.01, 0.001]),
    )
    made: Contestant = ours.sweep(work, rates) if name == "jaxnets" else PEERS[name].call("sweep", work, rates)
    made.check()
    assert made.trials == 3
    made.turn()


@pytest.mark.parametrize("name", ["jaxnets", *(name for name in INSTALLED if name in ("Flax Linen", "Haiku"))])
def test_making_parameters_is_a_turn_of_its_own(name: str):
    work = Work(networks.mlp(4, classes=3), data.noise(4, 6), data.classes(4, 3), 2)
    both = [ours.start(work, jit=jit) for jit in (True, False)]
    for made in both if name == "jaxnets" else [PEERS[name].call("start", work)]:
        made.check()
        made.turn()


@pytest.mark.slow
def test_half_precision_is_for_those_who_do_it():
    work = Work(
        (Conv(4, 3), Norm(), Mean(), Dense(3)), data.noise(2, 4, 4, 2), data.classes(2, 3), 2, precision="bfloat16"
    )
    for name in INSTALLED:
        if name in ("PyTorch", "Flax Linen"):
            PEERS[name].call("train", work).check()
        else:
            with pytest.raises(Unsuited, match="float32 alone"):
                PEERS[name].call("train", work)
    ours.train(work, scan=False).check()


def test_batches_cover_every_example_once_an_epoch():
    work = Work(networks.mlp(4), data.noise(7, 6), data.classes(7), 3, epochs=2)
    seen = list(work.batches(np.random.default_rng(0)))
    assert [len(each) for each in seen] == [3, 3, 1] * 2
    assert sorted(np.concatenate(seen[:3])) == sorted(np.concatenate(seen[3:])) == list(range(7))
    assert not np.array_equal(np.concatenate(seen[:3]), np.concatenate(seen[3:]))
