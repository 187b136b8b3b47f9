"""Generation of sequences by a trained network: sampling, greedy decoding, beam search, and decoding of CTC."""

from jaxnets.core.cache import grow
from jaxnets.decoding.beam_search import beam_search
from jaxnets.decoding.ctc import ctc_beam_search, ctc_greedy
from jaxnets.decoding.greedy import Decoded, greedy
from jaxnets.decoding.reading import prefill, step
from jaxnets.decoding.sampling import sample, stream

__all__ = [
    "Decoded",
    "beam_search",
    "ctc_beam_search",
    "ctc_greedy",
    "greedy",
    "grow",
    "prefill",
    "sample",
    "step",
    "stream",
]
