"""Heat maps of a classifier or segmenter, what they explain, and whether they are to be trusted."""

from helpers.explain.maps import (
    Captured,
    cam,
    capture,
    grad_cam,
    guided_backprop,
    hires_cam,
    integrated_gradients,
    layer_cam,
    occlusion,
    resize_map,
)

__all__ = [
    "Captured",
    "cam",
    "capture",
    "grad_cam",
    "guided_backprop",
    "hires_cam",
    "integrated_gradients",
    "layer_cam",
    "occlusion",
    "resize_map",
]
