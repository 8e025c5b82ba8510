"""From a seed, a rough map or probabilities to an outline: regions, contours, and a fully connected CRF."""

from helpers.segment.crf import dense_crf
from helpers.segment.regions import (
    boxes,
    closed_path,
    contour_cost,
    graph_search,
    k_means,
    largest,
    optimal_path,
    random_walker,
    refine_by_contour,
    region_growing,
    seeds_from_map,
)

__all__ = [
    "boxes",
    "closed_path",
    "contour_cost",
    "dense_crf",
    "graph_search",
    "k_means",
    "largest",
    "optimal_path",
    "random_walker",
    "refine_by_contour",
    "region_growing",
    "seeds_from_map",
]
