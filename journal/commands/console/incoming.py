"""Lines from a file or a pipe, read by a thread so that waiting for them holds up nothing else."""

import errno
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Final, NamedTuple

LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A longer line is not held in memory. It is the most that the library takes as one event."""

TOO_LONG_BYTES_KEPT: Final = 64 * 1024
"""How much of a line that is too long is kept, to show what it was."""

_CHUNK_BYTES: Final = 256 * 1024
_QUEUE_CHUNKS: Final = 16

_TICK_SECONDS: Final = 0.1
_DRAIN_SECONDS: Final = 0.2  # for what the thread has read and not handed over yet


def open_input(name: str) -> RawIOBase:
    """Open a file, or standard input for "-".

    Standard input is opened anew without Python's buffer: a thread that waits inside that buffer
    would make the interpreter abort at its end.

    Raises:
        OSError: it cannot be opened.
    """
    if name != "-":
        return Path(name).open("rb", buffering=0)
    if sys.stdin is None:
        raise OSError(errno.EBADF, "closed", "standard input")
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)


BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What some programs write before UTF-8. It is no JSON, and the reference refuses it, too."""

_ENCODINGS: Final = {
    b"\x1f\x8b": ("gzip", "gunzip -c"),
    b"\xff\xfe": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
}


class EncodedError(Exception):
    """An input is something that has to be decoded first, by the program `decoder`."""

    def __init__(self, start: bytes) -> None:
        name, self.decoder = _ENCODINGS[start]
        super().__init__(f"looks like {name}, since it begins with {start.hex(' ')}")


def refuse_encoded(start: bytes) -> None:
    """Refuse an input by its beginning.

    Raises:
        EncodedError: it looks like something else than UTF-8.
    """
    if start[:2] in _ENCODINGS:
        raise EncodedError(start[:2])


class Incoming:
    """The bytes of a stream, read ahead by a thread. The stream is closed when the thread ends."""

    def __init__(self, stream: RawIOBase) -> None:
        self.ended = False
        self.stream = stream
        self._queue: queue.Queue[bytes | OSError | None] = queue.Queue(_QUEUE_CHUNKS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="journal-input", daemon=True)

    def chunks(self, interrupted: threading.Event) -> Iterator[bytes]:
        """Yield what is read, and b"" whenever nothing has come for a tenth of a second.

        When `interrupted` is set, what was read until then is still yielded. `ended` tells
        afterwards whether that was all there is.

        Raises:
            OSError: reading failed; everything before was yielded.
        """
        self._thread.start()
        while not interrupted.is_set():
            try:
                chunk = self._queue.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield b""
                continue
            if isinstance(chunk, OSError):
                if interrupted.wait(_DRAIN_SECONDS):  # a terminal that is gone sends a signal, too
                    return
                raise chunk
            if chunk is None:
                self.ended = True
                return
            yield chunk
        yield from self._drained()

    def close(self) -> None:
        """Let the thread end, unless it waits for input: then it ends with the process."""
        self._stopped.set()
        if self._thread.ident is None:
            self.stream.close()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def _drained(self) -> Iterator[bytes]:
        self._stopped.set()
        while True:
            try:
                chunk = self._queue.get(timeout=_DRAIN_SECONDS)
            except queue.Empty:
                return
            if not isinstance(chunk, bytes):
                self.ended = chunk is None
                return
            yield chunk

    def _read(self) -> None:
        try:
            with self.stream:
                while not self._stopped.is_set():
                    chunk = self.stream.read(_CHUNK_BYTES)
                    if chunk is None:  # a descriptor that does not block, and nothing there
                        time.sleep(_TICK_SECONDS)
                        continue
                    if not chunk:
                        self._queue.put(None)
                        return
                    self._queue.put(chunk)
        except OSError as error:
            self._queue.put(error)


class TooLong(NamedTuple):
    """A line that is longer than `LINE_BYTES_MAX`: how it begins."""

    start: bytes


class LineSplitter:
    """Cuts chunks into lines at line feeds; of one that is too long it keeps the beginning."""

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._skipping = False

    @property
    def held_bytes(self) -> int:
        """How much there is of a line that has not ended yet."""
        return self._held_bytes

    def feed(self, chunk: bytes) -> Iterator[bytes | TooLong]:
        """Yield the lines that end in this chunk, without their ends.

        A line that is too long is yielded as soon as that is known, and its rest is passed over.
        """
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            if self._pieces or self._skipping or len(piece) > self._line_bytes_max:
                yield from self._hold(piece)
                yield from self.finish()
            else:
                yield piece
        if rest:
            yield from self._hold(rest)

    def finish(self) -> Iterator[bytes]:
        """Yield the line that has begun, if there is one: it is complete."""
        if self._pieces:
            yield b"".join(self._pieces)
        self._pieces, self._held_bytes, self._skipping = [], 0, False

    def _hold(self, piece: bytes) -> Iterator[TooLong]:
        if self._skipping:
            return
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > self._line_bytes_max:
            yield TooLong(self._beginning())
            self._pieces, self._held_bytes, self._skipping = [], 0, True

    def _beginning(self) -> bytes:
        beginning = bytearray()
        for piece in self._pieces:
            beginning += piece[: TOO_LONG_BYTES_KEPT - len(beginning)]
        return bytes(beginning)
