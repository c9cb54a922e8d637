"""Laying a -wal over its file without SQLite, frame by frame: one that is broken hides no other.

SQLite stops at the first frame whose checksum does not hold. But each frame has the checksum that
the next one goes on from, so those behind it can be checked all the same.
"""

import struct
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = 0x377F0682
"""Where its last bit is set, checksums are over big-endian integers."""

_MASK: Final = 0xFFFFFFFF

Sums = tuple[int, int]


class _Header(NamedTuple):
    page_size: int
    order: str
    salts: bytes
    sums: Sums | None


def lay_over(image: Path, wal: Path, page_size: int) -> int:
    """Write the pages of a -wal into a copy of its file, those of committed transactions.

    Args:
        image: the copy, which is changed.
        wal: of this very file; whether it is, its caller finds out by what comes of it.
        page_size: of the file; a -wal of pages of another size is not of it.

    Returns:
        how many frames were written; 0: it has none, or the copy was left as it was.
    """
    with wal.open("rb") as frames:
        header = _header(frames, page_size)
        if header is None or header.page_size != page_size:
            return 0
        good = _good_frames(frames, header)
        if not good:
            return 0
        return _written(image, frames, header, good)


def _header(frames: BinaryIO, page_size: int) -> _Header | None:
    header = frames.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return None
    magic, size = (int.from_bytes(header[at : at + 4]) for at in (0, 8))
    sums = _two_integers(header[24:])
    order = ">" if magic & 1 else "<"
    if magic | 1 == _MAGIC | 1 and _summed(order, (0, 0), header[:24]) == sums:
        return _Header(size, order, header[16:24], sums)
    # It is broken. Every frame has the salts, too; without a checksum to go on from, the first one
    # cannot be checked.
    first = frames.read(_FRAME_HEADER_BYTES)
    return _Header(page_size, "<", first[8:16], None)


def _good_frames(frames: BinaryIO, header: _Header) -> bytearray:
    """Return, for each frame up to the last commit, whether its checksum holds."""
    good = bytearray()
    committed = 0
    stored, computed = header.sums, header.sums
    frames.seek(_HEADER_BYTES)
    while len(frame := frames.read(_FRAME_HEADER_BYTES + header.page_size)) > header.page_size:
        data = memoryview(frame)[_FRAME_HEADER_BYTES:]
        if len(data) < header.page_size:
            break
        sums = _two_integers(frame[16:24])
        is_good = False
        if frame[8:16] == header.salts:
            for before in {stored, computed} - {None}:
                assert before is not None  # noqa: S101 (for type checkers)
                found = _summed(header.order, _summed(header.order, before, frame[:8]), data)
                is_good = found == sums
                if is_good:
                    break
            computed = sums if is_good else None
        stored = sums
        good.append(is_good)
        if is_good and frame[4:8] != b"\0\0\0\0":
            committed = len(good)
    del good[committed:]
    return good


def _written(image: Path, frames: BinaryIO, header: _Header, good: bytearray) -> int:
    count = pages = 0
    frames.seek(_HEADER_BYTES)
    with image.open("r+b") as file:
        for is_good in good:
            frame = frames.read(_FRAME_HEADER_BYTES + header.page_size)
            number, size = _two_integers(frame[:8])
            if is_good and number:
                file.seek((number - 1) * header.page_size)
                file.write(memoryview(frame)[_FRAME_HEADER_BYTES:])
                pages = size or pages
                count += 1
        if pages:
            file.truncate(pages * header.page_size)
    return count


def _summed(order: str, sums: Sums, data: bytes | memoryview) -> Sums:
    """Return the checksum that goes on from another one over some bytes."""
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second


def _two_integers(data: bytes) -> Sums:
    return int.from_bytes(data[:4]), int.from_bytes(data[4:8])
