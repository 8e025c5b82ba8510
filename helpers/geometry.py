"""From an image to a padded, resized square and back."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """Where an image of `height` × `width` pixels lies in its padded square of `side` pixels."""

    height: int
    width: int

    @property
    def side(self) -> int:
        return max(self.height, self.width)

    @property
    def top(self) -> int:
        return (self.side - self.height) // 2

    @property
    def left(self) -> int:
        return (self.side - self.width) // 2


def letterbox(image: Tensor, size: int, *, fill: float = 0.0) -> tuple[Tensor, Box]:
    """An image (C, H, W) centred on a square of `fill` and resized to (C, size, size); the Box leads back."""
    box = Box(*image.shape[-2:])
    square = image.new_full((*image.shape[:-2], box.side, box.side), fill)
    square[..., box.top : box.top + box.height, box.left : box.left + box.width] = image
    return F.interpolate(square[None], (size, size), mode="bilinear", antialias=True)[0], box


def unletterbox(maps: Tensor, box: Box) -> Tensor:
    """Heat maps (…, h, w) of a letterboxed image, at any resolution, laid over the image as it was: (…, H, W)."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    square = F.interpolate(flat, (box.side, box.side), mode="bilinear", antialias=True)
    image = square[0, :, box.top : box.top + box.height, box.left : box.left + box.width]
    return image.reshape(*maps.shape[:-2], box.height, box.width)
