"""Metrics of generated text: hypotheses and their references, as strings or tokens, on the host."""

from jaxnets.metrics.text.bleu import bleu
from jaxnets.metrics.text.chrf import chrf
from jaxnets.metrics.text.rouge import Rouge, exact_match, rouge_l, rouge_n

__all__ = ["Rouge", "bleu", "chrf", "exact_match", "rouge_l", "rouge_n"]
