"""Generation by a trained network: sequences by sampling, greedy decoding or beam search, CTC, pictures by a flow."""

from jaxnets.core.cache import grow
from jaxnets.decoding.beam_search import beam_search
from jaxnets.decoding.ctc import ctc_beam_search, ctc_greedy
from jaxnets.decoding.flow import flow, integrate
from jaxnets.decoding.greedy import Decoded, greedy
from jaxnets.decoding.reading import prefill, step
from jaxnets.decoding.sampling import sample, stream

__all__ = [
    "Decoded",
    "beam_search",
    "ctc_beam_search",
    "ctc_greedy",
    "flow",
    "greedy",
    "grow",
    "integrate",
    "prefill",
    "sample",
    "step",
    "stream",
]
