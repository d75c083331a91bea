import numpy as np
import torch

from trainer.attention import Segments, attend


def test_segments_of_two_rows_by_hand() -> None:
    segments = Segments.lay_out(np.array([2, 1, 1, 4]), 4, entries=9).to("cpu")
    assert segments.document.tolist() == [[0, 0, 1, 2], [3, 3, 3, 3]]
    assert segments.position.tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert segments.cu_seqlens.tolist() == [0, 2, 3, 4, 8, 8, 8, 8, 8]
    assert segments.cu_seqlens.dtype == torch.int32
    assert segments.mask[0, 0].tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]
    assert bool(segments.mask[1].all())


def test_attention_within_a_packed_row_equals_softmax_over_each_document() -> None:
    torch.manual_seed(0)
    lens, heads, size = [5, 1, 2, 5, 3], 2, 8
    query, key, value = torch.randn(3, 2, 8, heads, size).unbind(0)
    got = attend(query, key, value, Segments.build(np.array(lens), 8))
    flat = [x.flatten(0, 1) for x in (query, key, value)]
    start = 0
    for n in lens:
        q, k, v = (x[start : start + n].transpose(0, 1) for x in flat)
        expected = torch.softmax(q @ k.transpose(1, 2) / size**0.5, -1) @ v
        torch.testing.assert_close(got.flatten(0, 1)[start : start + n], expected.transpose(0, 1), atol=1e-6, rtol=0)
        start += n
    assert start == 16  # every slot was compared
