"""Writing 16-bit PNG files, which Pillow cannot do for colour."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np


def png16(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) of 16 bits; rows are stored plainly and as differences, in turn."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    big = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    step = 6 if colour == 2 else 2
    rows = []
    for number, row in enumerate(big):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        rows.append(bytes([number % 2]) + ((row - left * (number % 2)) % 256).astype(np.uint8).tobytes())

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
