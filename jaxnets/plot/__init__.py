"""Figures: each function returns a matplotlib `Figure`, or a diagram as text; nothing is shown or saved."""

from jaxnets.plot.calibration import calibration
from jaxnets.plot.curves import curves
from jaxnets.plot.diagram import Diagram, diagram
from jaxnets.plot.images import confusion, kernels, misclassified
from jaxnets.plot.receptive_field import draw_receptive_field, feature_maps

__all__ = [
    "Diagram",
    "calibration",
    "confusion",
    "curves",
    "diagram",
    "draw_receptive_field",
    "feature_maps",
    "kernels",
    "misclassified",
]
