"""Cross-image relational distillation (CIRKD, Yang et al., CVPR 2022, arXiv:2204.06986) and its memory."""

import torch
from torch import Tensor, nn

from distill.losses.distillation.common import (
    Pixels,
    cell_weight,
    class_weight,
    image_mean,
    pair,
    weighted_kl,
)
from distill.losses.distillation.features import class_means, unit

# Bounds of the cost. Smaller maps and memories are used whole.
CELLS = 256
"""Cells of an image that are compared, drawn at random from those with weight."""
CONTRASTS = 1024
"""Remembered embeddings that cells are compared with, drawn at random, equally many per class."""
NEW_PIXELS = 16
"""Cells of each class that an image adds to the memory, drawn at random."""


class MemoryBank(nn.Module):
    """The teacher's embeddings of past images: per class, a first-in-first-out queue of pixels and one of regions.

    A region is the mean embedding of a class in an image. All queues are in the state dict. They take float32
    K × (pixels + regions) × C of memory.

    Args:
        num_classes: K.
        channels: channels C of the teacher's features.
        pixels: length of a class's queue of pixels.
        regions: length of a class's queue of regions.
    """

    pixel_queue: Tensor
    pixel_count: Tensor
    region_queue: Tensor
    region_count: Tensor

    def __init__(self, num_classes: int, channels: int, *, pixels: int = 512, regions: int = 128) -> None:
        super().__init__()
        for name, length in (("pixel", pixels), ("region", regions)):
            self.register_buffer(f"{name}_queue", torch.zeros(num_classes, length, channels))
            # entries ever added: min(count, length) are filled, and the next goes to count % length
            self.register_buffer(f"{name}_count", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def update(self, teacher: Tensor, pixels: Pixels) -> None:
        """Add some cells of each class of each image, and its regions; a cell belongs to the class with most weight.

        It always draws equally many numbers from torch's generator, independently of the content of the images.

        Args:
            teacher: features, floating N×C×h×w.
            pixels: labels and weights, at any size; cells without weight (void, no data) are never added.
        """
        member = class_weight(pixels, teacher.shape[-2:]).to(teacher).flatten(2)
        share, owner = member.max(1, keepdim=True)
        classes = torch.arange(member.shape[1], device=owner.device)[None, :, None]
        mine = (owner == classes) & (share > 0)
        drawn = (torch.rand_like(member) + mine).topk(min(NEW_PIXELS, member.shape[2]), dim=2)
        cells = unit(teacher.flatten(2)).mT
        images = torch.arange(len(cells), device=cells.device)[:, None, None]
        picked = cells[images, drawn.indices]  # N×K×new×C
        is_new = mine.gather(2, drawn.indices)
        _push(
            self.pixel_queue,
            self.pixel_count,
            picked.transpose(0, 1).flatten(1, 2),
            is_new.transpose(0, 1).flatten(1),
        )
        regions = class_means(unit(teacher), member)
        _push(self.region_queue, self.region_count, regions.transpose(0, 1), (member.sum(2) > 0).T)


def cirkd(
    student: Tensor,
    teacher: Tensor,
    pixels: Pixels,
    *,
    memory: MemoryBank,
    t: float = 0.1,
    batch: float = 1.0,
    pixel: float = 0.1,
    region: float = 0.1,
    layers: int = 1,
) -> Tensor:
    """CIRKD: how similar each pixel is to those of other images, and to remembered pixels and regions.

    Yang et al. (CVPR 2022, arXiv:2204.06986). Embeddings are features scaled to length 1. The similarities of a cell to
    the cells of an image of the batch (all pairs of images, itself included), to remembered pixels and to remembered
    regions form three softmax distributions. The loss is the weighted sum of KL(teacher ‖ student) of each, mean over
    the images of the batch and over the cells of the image. Above `CELLS` and `CONTRASTS`, torch's generator draws a
    sample. Unlike all other losses, that of an image depends on its batch and on the past: in training mode, the
    teacher's embeddings are added to the memory after the loss; an empty memory contributes 0.

    Args:
        student: features, floating N×C×h×w, mapped to the teacher's channels; resized to its h×w if strides differ.
        teacher: features, floating N×C×h×w; detached.
        pixels: labels and weights, at any size; a weight of 0 marks void and no data.
        memory: of as many classes as `pixels` and as many channels as `teacher`.
        t: softmax temperature > 0 of the similarities, which range from -1 to 1.
        batch: weight ≥ 0 of the similarities within the batch.
        pixel, region: weights ≥ 0 of the similarities to remembered pixels and regions.
        layers: 1×1 convolutions of the adapter before (`distill.losses.distillation_loss`): 1, or 2 as the authors.

    Returns:
        N values ≥ 0 in nats, float32 or float64; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: student and teacher have different numbers of channels.
    """
    student, teacher = pair(student, teacher)
    weight = cell_weight(pixels, teacher.shape[-2:]).to(student).flatten(1)
    chosen = _some(weight > 0, CELLS)
    weight = weight.gather(1, chosen)
    images = torch.arange(len(weight), device=weight.device)[:, None]
    q, p = (unit(features.flatten(2)).mT[images, chosen] for features in (student, teacher))  # N×M×C
    loss = batch * _within_batch(q, p, weight, t)
    loss = loss + pixel * _to_memory(q, p, weight, memory.pixel_queue, memory.pixel_count, t)
    loss = loss + region * _to_memory(q, p, weight, memory.region_queue, memory.region_count, t)
    if memory.training:
        memory.update(teacher, pixels)
    return loss


def _within_batch(q: Tensor, p: Tensor, weight: Tensor, t: float) -> Tensor:
    """KL of a cell's similarities to the cells of each image, mean over images with weight, then over cells: N."""
    student, teacher = (torch.einsum("nic,ljc->nlij", x, x) / t for x in (q, p))
    divergence = weighted_kl(student, teacher, weight[None, :, None])  # N×N×M
    some = (weight.sum(1) > 0).to(divergence)
    return image_mean(divergence, weight[:, None] * some[:, None])


def _to_memory(q: Tensor, p: Tensor, weight: Tensor, queue: Tensor, count: Tensor, t: float) -> Tensor:
    """KL of a cell's similarities to remembered embeddings, mean over cells: N."""
    filled = torch.arange(queue.shape[1], device=count.device) < count[:, None]
    chosen = _some(filled, max(1, CONTRASTS // len(queue)))
    # indexing copies: the queue may change before the backward pass needs it
    contrast = queue[torch.arange(len(queue), device=count.device)[:, None], chosen].flatten(0, 1).to(q)
    divergence = weighted_kl(q @ contrast.T / t, p @ contrast.T / t, filled.gather(1, chosen).flatten().to(q))
    return image_mean(divergence, weight)


def _some(there: Tensor, most: int) -> Tensor:
    """Indices B×m of at most `most` positions of each row of bool B×M, drawn at random, True positions first."""
    rows, places = there.shape
    if places <= most:
        return torch.arange(places, device=there.device).expand(rows, -1)
    return (torch.rand(rows, places, device=there.device) + there).topk(most, dim=1).indices


def _push(queue: Tensor, count: Tensor, entries: Tensor, new: Tensor) -> None:
    """Write the `entries` K×E×C that are `new` (bool K×E) into the queues K×L×C, in order and in place."""
    length = queue.shape[1]
    rank = new.cumsum(1) - 1
    total = new.sum(1, keepdim=True)
    # only the last ones that fit: two entries for one slot would be written in an undefined order
    row, column = (new & (rank >= total - length)).nonzero(as_tuple=True)
    queue[row, (count[row] + rank[row, column]) % length] = entries[row, column].to(queue)
    count += total.squeeze(1)
