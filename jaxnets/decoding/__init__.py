"""Generation of sequences by a trained network: sampling, greedy decoding, beam search."""

from jaxnets.decoding.beam_search import beam_search
from jaxnets.decoding.greedy import Decoded, greedy
from jaxnets.decoding.sampling import sample

__all__ = ["Decoded", "beam_search", "greedy", "sample"]
