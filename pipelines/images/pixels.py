"""The pixels of a Pillow image as an array, without a copy, and what is made of them at once.

`Image.tobytes` and `Image.convert` go through the pixels one by one, and take longer than all that is done here.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from PIL import Image

# The luma of ITU-R 601-2 in 1/65536, rounded: L24 of Pillow's Convert.c.
_RED, _GREEN, _BLUE, _HALF = 19595, 38470, 7471, 0x8000
_BYTE, _TWO, _THREE, _8, _16, _24 = (np.uint32(one) for one in (0xFF, 0xFFFF, 0xFFFFFF, 8, 16, 24))


class _ArrowArray(ctypes.Structure):
    """Arrow's C data interface, https://arrow.apache.org/docs/format/CDataInterface.html."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _View:
    """What NumPy makes a read-only array of; it holds the memory as long as the array is there."""

    def __init__(self, image: Image.Image) -> None:
        _, self._capsule = image.__arrow_c_array__()  # type: ignore[no-untyped-call]
        array = _ArrowArray.from_address(_pointer(self._capsule, b"arrow_array"))
        values = array.children[0][0] if array.n_children else array
        shape, kind = (image.height, image.width), "|u1" if image.mode == "L" else "<u4"
        self.__array_interface__ = {"shape": shape, "typestr": kind, "data": (values.buffers[1], True), "version": 3}


def pixels(image: Image.Image) -> npt.NDArray[Any]:
    """View the pixels of an image, uint8[height, width] of L, uint32 of RGB: red is the lowest byte, the highest none.

    The array is read-only. A copy where Pillow holds the image in several pieces, which it does from 16 MiB on, or has
    it in the memory of something else, of which its export knows nothing (12.3: it would end the process).
    """
    if not image.readonly:
        with contextlib.suppress(ValueError):
            return np.asarray(_View(image))
    raw, dtype = ("L", np.uint8) if image.mode == "L" else ("RGBX", np.dtype("<u4"))
    return np.frombuffer(image.tobytes("raw", raw), dtype).reshape(image.height, image.width)


def rgb_bytes(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Make the bytes of an RGB image: uint8[height × width × 3], what its `tobytes` returns."""
    values = pixels(image).reshape(-1)
    out = np.empty((len(values) + 3) // 4 * 3, np.uint32)
    _pack(values, out)
    return out.view(np.uint8)[: 3 * len(values)]


def grey_columns(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Make the grey values of an RGB image, those of its convert("L"), column by column.

    Returns uint8[width, height and up to three more]: what goes beyond the height means nothing.
    """
    out = np.empty(((image.width + 3) // 4 * 4, (image.height + 3) // 4), np.uint32)
    _grey(pixels(image), out)
    return out.view(np.uint8)[: image.width]


_WORDS = numba.types.Array(numba.uint32, 1, "C", readonly=True)
_ROWS = numba.types.Array(numba.uint32, 2, "C", readonly=True)


@numba.njit(numba.void(_WORDS, numba.uint32[::1]), nogil=True, cache=True)
def _pack(values: Any, out: Any) -> None:
    """Four pixels of four bytes become three words."""
    whole = len(values) // 4
    for at in range(whole):
        first, second, third, fourth = values[4 * at], values[4 * at + 1], values[4 * at + 2], values[4 * at + 3]
        out[3 * at] = first & _THREE | second << _24
        out[3 * at + 1] = second >> _8 & _TWO | third << _16
        out[3 * at + 2] = third >> _16 & _BYTE | fourth << _8
    if len(values) % 4:
        left = np.zeros(4, np.uint32)
        left[: len(values) % 4] = values[4 * whole :]
        out[3 * whole] = left[0] & _THREE | left[1] << _24
        out[3 * whole + 1] = left[1] >> _8 & _TWO | left[2] << _16
        out[3 * whole + 2] = left[2] >> _16 & _BYTE


@numba.njit(numba.void(_ROWS, numba.uint32[:, ::1]), nogil=True, cache=True)
def _grey(values: Any, out: Any) -> None:
    """Four rows at a time: first their grey values, then these turned, words of 4 × 4 at once."""
    height, width = values.shape
    grey = np.zeros((4, len(out)), np.uint8)
    words = grey.view(np.uint32)
    for quad in range(out.shape[1]):
        for y in range(min(4, height - 4 * quad)):
            source, target = values[4 * quad + y], grey[y]
            for x in range(width):
                value = source[x]
                red, green, blue = value & _BYTE, value >> _8 & _BYTE, value >> _16 & _BYTE
                target[x] = (red * _RED + green * _GREEN + blue * _BLUE + _HALF) >> _16
        for x in range(words.shape[1]):
            a, b, c, d = words[0, x], words[1, x], words[2, x], words[3, x]
            out[4 * x, quad] = a & _BYTE | (b & _BYTE) << _8 | (c & _BYTE) << _16 | d << _24
            a, b, c, d = a >> _8, b >> _8, c >> _8, d >> _8
            out[4 * x + 1, quad] = a & _BYTE | (b & _BYTE) << _8 | (c & _BYTE) << _16 | d << _24
            a, b, c, d = a >> _8, b >> _8, c >> _8, d >> _8
            out[4 * x + 2, quad] = a & _BYTE | (b & _BYTE) << _8 | (c & _BYTE) << _16 | d << _24
            a, b, c, d = a >> _8, b >> _8, c >> _8, d >> _8
            out[4 * x + 3, quad] = a & _BYTE | (b & _BYTE) << _8 | (c & _BYTE) << _16 | d << _24
