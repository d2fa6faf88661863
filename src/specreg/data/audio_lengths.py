"""Lengths that containers of sound declare, where the decoder takes another length without a word."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

# Programs that write wav to a pipe put one of these in place of the length: 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, each
# less the header's size.
STREAMED = 0x7FFF_0000


def check_wav_length(path: Path) -> None:
    """Raise ValueError where a RIFF or RF64 file ends before its data chunk does; other files pass.

    A length that stands for "unknown" passes, and so does an incomplete last sample.
    """
    with path.open("rb") as file:
        form, _, kind = struct.unpack("4s4s4s", file.read(12).ljust(12))
        if form not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or kind != b"WAVE":
            return
        order = ">" if form == b"RIFX" else "<"
        long_size, frame = 0, 1
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack(f"{order}4sI", header)
            if name == b"data":
                promised = long_size if form in (b"RF64", b"BW64") and size == 0xFFFF_FFFF else size
                streamed = promised >= (1 << 63) if promised is long_size else promised >= STREAMED
                present = os.fstat(file.fileno()).st_size - file.tell()
                if not streamed and present + frame <= promised:
                    raise ValueError(f"it is cut short: its header promises {promised} bytes of sound, found {present}")
                return
            body = file.read(16) if name in (b"fmt ", b"ds64") else b""
            if name == b"fmt " and len(body) == 16:
                (frame,) = struct.unpack(f"{order}12xH2x", body)
            elif name == b"ds64" and len(body) == 16:
                (long_size,) = struct.unpack("<8xQ", body)
            file.seek(size + size % 2 - len(body), os.SEEK_CUR)


def mp3_length_is_declared(path: Path) -> bool:
    """Return whether an mp3 has a Xing, Info or VBRI header with its length; without it, decoders guess.

    Raises:
        ValueError: the header promises more bytes than the file has.
    """
    with path.open("rb") as file:
        present = os.fstat(file.fileno()).st_size - skip_id3(file)
        first = file.read(256)
    found = re.search(rb"(?:Xing|Info)(?P<flags>.{4})(?P<fields>.{8})|VBRI.{6}(?P<vbri>.{8})", first, re.DOTALL)
    if found is None:
        return False
    if found["vbri"]:
        size, frames = struct.unpack(">II", found["vbri"])
    else:
        (flags,) = struct.unpack(">I", found["flags"])
        frames, size = struct.unpack(">II", found["fields"])
        frames, size = (frames if flags & 1 else 0), (size if flags & 3 == 3 else 0)
    if present < size:
        raise ValueError(f"it is cut short: its header promises {size} bytes of sound, found {present}")
    return bool(frames)


def skip_id3(file: BinaryIO) -> int:
    """Move to the end of the ID3 tag at the start of a file, if there is one, and return that position."""
    file.seek(0)
    start = file.read(10)
    end = 0
    if start[:3] == b"ID3" and len(start) == 10:  # the tag's size has 7 bits in a byte
        end = 10 + sum(byte << shift for byte, shift in zip(start[6:], (21, 14, 7, 0), strict=True))
        end += 10 if start[5] & 0x10 else 0
    return file.seek(end)
