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

# What bounds the cost. Maps and memories that are smaller are taken whole.
CELLS = 256
"""Cells of an image that are compared, drawn among those with weight."""
CONTRASTS = 1024
"""Remembered embeddings that cells are compared with, drawn alike from each class."""
NEW_PIXELS = 16
"""Cells of a class that an image adds to the memory, drawn among them."""


class MemoryBank(nn.Module):
    """The teacher's embeddings of past images: for each class a queue of pixels and one of regions, oldest out first.

    A region is the mean embedding of a class in an image. Everything is in the state dict. Memory: float32
    K × (pixels + regions) × C.

    Args:
        num_classes: K.
        channels: of the teacher's features, C.
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
            # how many ever came in: the next place is count % length, min(count, length) are filled
            self.register_buffer(f"{name}_count", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def update(self, teacher: Tensor, pixels: Pixels) -> None:
        """Take in some cells of each class of each image, and its regions; a cell is of the class with most weight.

        Draws from torch's generator, the same numbers whatever the images hold.

        Args:
            teacher: features N×C×h×w.
            pixels: labels and weights, at any size.
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
) -> Tensor:
    """CIRKD: how similar each pixel is to those of other images, and to remembered pixels and regions.

    Yang et al. (CVPR 2022, arXiv:2204.06986). Embeddings are features scaled to length 1. The similarities of a cell to
    the cells of an image of the batch (each with each, itself included), to remembered pixels and to remembered
    regions make three softmax distributions; the loss is the weighted sum of KL(teacher ‖ student) of each, mean over
    images of the batch and over the cells of the image. Beyond `CELLS` and `CONTRASTS` a random part is taken, by
    torch's generator. Unlike all other losses, that of an image depends on its batch and on the past.

    In training mode, the memory takes in the teacher's embeddings of this batch after the loss; an empty memory
    contributes 0.

    Args:
        student: features N×C×h×w, already brought to the teacher's C channels; resized bilinearly where strides differ.
        teacher: features N×C×h×w, detached here.
        pixels: labels and weights, at any size.
        memory: for as many classes and channels.
        t: softmax temperature > 0 of the similarities, which span -1 to 1.
        batch: weight ≥ 0 of the similarities within the batch.
        pixel: weight ≥ 0 of those to remembered pixels.
        region: weight ≥ 0 of those to remembered regions.

    Returns:
        N values in nats, ≥ 0; 0, with zero gradient, for an image without weight.

    Raises:
        UserError: the two have different numbers of channels.
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
    """KL between a cell's similarities to the cells of another image; mean over images with weight, then over cells."""
    student, teacher = (torch.einsum("nic,ljc->nlij", x, x) / t for x in (q, p))
    divergence = weighted_kl(student, teacher, weight[None, :, None])  # N×N×M
    some = (weight.sum(1) > 0).to(divergence)
    return image_mean(divergence, weight[:, None] * some[:, None])


def _to_memory(q: Tensor, p: Tensor, weight: Tensor, queue: Tensor, count: Tensor, t: float) -> Tensor:
    """KL between a cell's similarities to remembered embeddings, mean over cells."""
    filled = torch.arange(queue.shape[1], device=count.device) < count[:, None]
    chosen = _some(filled, max(1, CONTRASTS // len(queue)))
    # indexing copies: the queue may change before the backward pass needs it
    contrast = queue[torch.arange(len(queue), device=count.device)[:, None], chosen].flatten(0, 1).to(q)
    divergence = weighted_kl(q @ contrast.T / t, p @ contrast.T / t, filled.gather(1, chosen).flatten().to(q))
    return image_mean(divergence, weight)


def _some(there: Tensor, most: int) -> Tensor:
    """Indices B×m of at most `most` places in each row of bool B×M, drawn among those that are there first."""
    rows, places = there.shape
    if places <= most:
        return torch.arange(places, device=there.device).expand(rows, -1)
    return (torch.rand(rows, places, device=there.device) + there).topk(most, dim=1).indices


def _push(queue: Tensor, count: Tensor, entries: Tensor, new: Tensor) -> None:
    """Write those of `entries` K×E×C that are `new` (bool K×E) into the queues K×L×C, in order, in place."""
    length = queue.shape[1]
    rank = new.cumsum(1) - 1
    total = new.sum(1, keepdim=True)
    # of more than fit only the last: two for one place would be written in no certain order
    row, column = (new & (rank >= total - length)).nonzero(as_tuple=True)
    queue[row, (count[row] + rank[row, column]) % length] = entries[row, column].to(queue)
    count += total.squeeze(1)
