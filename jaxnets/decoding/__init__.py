"""Generation of sequences by a trained network: sampling, greedy decoding, beam search, and decoding of CTC."""

from jaxnets.core.cache import grow
from jaxnets.decoding.beam_search import beam_search
from jaxnets.decoding.ctc import ctc_beam_search, ctc_greedy
"""Generation by a trained network: sequences by sampling, greedy decoding or beam search, pictures by a flow."""

from jaxnets.core.cache import grow
from jaxnets.decoding.beam_search import beam_search
from jaxnets.decoding.flow import flow, integrate
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
__all__ = ["Decoded", "beam_search", "flow", "greedy", "grow", "integrate", "prefill", "sample", "step", "stream"]
