"""Attention within document segments: one function, two kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Segments:
    """Where documents begin and end in a batch of packed rows, on the device of the batch.

    document: int32 [rows, length], the number of each slot's segment, unique in the batch; the padding that ends a row
    is a segment too, so every slot sees at least itself and no softmax is empty. position: int64 [rows, length], from
    0 within each segment. cu_seqlens: int32, starts of the segments in the flattened batch, then its end, repeated up
    to a fixed number so that a compiled model meets one shape. longest: slots in a row, the bound that a kernel may
    assume. mask: same-document mask, bool [rows, 1, length, length], for the kernels that need one; made once for a
    batch, used by every layer.
    """

    document: Tensor
    position: Tensor
    cu_seqlens: Tensor
    longest: int
    mask: Tensor | None = None

    @staticmethod
    def build(lens: np.ndarray, length: int, device: torch.device | str = "cpu") -> Segments:
        """Make segments on a device from their lengths: int [segments], row after row, each adding up to `length`."""
        return Segments.lay_out(lens, length).to(device)

    @staticmethod
    def lay_out(lens: np.ndarray, length: int, entries: int = 0) -> Segments:
        """The same in main memory and without a mask. entries: of cu_seqlens; 0: segments + 1."""
        ends = np.cumsum(lens)
        document = np.repeat(np.arange(len(lens), dtype=np.int32), lens).reshape(-1, length)
        position = (np.arange(int(ends[-1])) - np.repeat(ends - lens, lens)).reshape(-1, length)
        cu_seqlens = np.full(max(entries, len(lens) + 1), ends[-1], np.int32)
        cu_seqlens[: len(lens)] = ends - lens
        a, b, c = (torch.from_numpy(each) for each in (document, position, cu_seqlens))
        return Segments(a, b, c, length)

    def to(self, device: torch.device | str, *, dense: bool = False) -> Segments:
        """Move to a device; the mask is made there, always on a CPU, elsewhere if `dense`."""
        document, position, cu = move((self.document, self.position, self.cu_seqlens), device)
        if document.is_cuda and not dense:
            return Segments(document, position, cu, self.longest)
        return Segments(document, position, cu, self.longest, (document[:, :, None] == document[:, None, :])[:, None])


def move(tensors: tuple[Tensor, ...], device: torch.device | str) -> tuple[Tensor, ...]:
    """Bring tensors to a device, without waiting where they are in pinned memory."""
    return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Attend within segments, scaled by 1/√head_size: float [rows, length, heads, head_size], as each argument.

    Without a mask `torch.nn.attention.varlen` (flash attention on CUDA in half precision; boundaries stay data); with
    one SDPA, since varlen has no CPU or float32 kernel and FlexAttention no backward on CPU (torch 2.13). The two agree
    to rounding, not to the bit.
    """
    if segments.mask is None:
        from torch.nn.attention.varlen import varlen_attn  # absent from CPU builds before torch 2.10

        q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
        cu, longest = segments.cu_seqlens, segments.longest
        out = varlen_attn(q, k, v, cu, cu, longest, longest)
        assert isinstance(out, Tensor)  # a tuple only where more was asked for
        return out.view(query.shape)
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=segments.mask).transpose(1, 2)
