"""
Content encodings: what a stream may do to the payloads on it.

An encoder gives back all of a payload at once, flushed, so that the frame can be decoded when it
arrives; its context stays, so that what a stream repeats costs little. A decoder makes no more than
there is room for: the limit holds inside of it, not afterwards.

============ ========================================================================
``identity`` nothing
``zlib``     one zlib stream (RFC 1950), sync flush after each payload
``zstd-8mb`` one zstd frame (RFC 8878), block flush after each payload, window to 8 MiB
``zstd``     the same with a window to 256 KiB: a decoder of it holds less than a megabyte
============ ========================================================================
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, Protocol

import attrs


zstd: Any = None
with suppress(ImportError):
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


class UndecodableError(Exception):
    """A payload is not what its stream's encoding makes."""


class Encoder(Protocol):
    """One direction of a stream, at the sender."""

    def encode(self, data: bytes) -> bytes:
        """A payload, encoded and flushed."""


class Decoder(Protocol):
    """One direction of a stream, at the receiver."""

    def decode(self, data: bytes, room: int) -> bytes:
        """
        A payload, decoded. The decoder cannot be used any more when it was too long, or not right.

        :param room: how many bytes it may have.
        :returns: at most one byte more than ``room``, and that where it has more.
        :raises UndecodableError: it cannot be decoded.
        """


class _ZlibEncoder:
    def __init__(self) -> None:
        self._compressor = zlib.compressobj()

    def encode(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)


class _ZlibDecoder:
    def __init__(self) -> None:
        self._decompressor = zlib.decompressobj()

    def decode(self, data: bytes, room: int) -> bytes:
        try:
            decoded = self._decompressor.decompress(data, room + 1)
        except zlib.error as error:
            raise UndecodableError(str(error)) from None
        if self._decompressor.eof:
            raise UndecodableError("the zlib stream has ended")
        return decoded


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class _ZstdEncoder:
    def __init__(self, window_log: int) -> None:
        parameter = zstd.CompressionParameter
        self._compressor = zstd.ZstdCompressor(
            options={parameter.compression_level: 3, parameter.window_log: window_log}
        )
        self._flush = zstd.ZstdCompressor.FLUSH_BLOCK

    def encode(self, data: bytes) -> bytes:
        encoded: bytes = self._compressor.compress(data, self._flush)
        return encoded


class _ZstdDecoder:
    def __init__(self, window_log: int) -> None:
        self._decompressor = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: window_log}
        )
        self._magic = _ZSTD_MAGIC

    def decode(self, data: bytes, room: int) -> bytes:
        if self._magic:
            # A libzstd may know the formats of its past, on whose windows there is no limit.
            size = min(len(data), len(self._magic))
            if data[:size] != self._magic[:size]:
                raise UndecodableError("not the beginning of a zstd frame")
            self._magic = self._magic[size:]
        try:
            decoded: bytes = self._decompressor.decompress(data, room + 1)
        except (zstd.ZstdError, EOFError) as error:
            raise UndecodableError(str(error)) from None
        if self._decompressor.eof:
            raise UndecodableError("the zstd frame has ended")
        return decoded


@attrs.frozen
class Encoding:
    """
    One content encoding.

    :ivar name: its name in stream settings.
    :ivar overhead: how much longer than itself a payload of up to 32 KiB can get, in bytes, at
        most. The settings that name the encoding are no longer either.
    :ivar encoder: makes an encoder.
    :ivar decoder: makes a decoder.
    """

    name: str
    overhead: int
    encoder: Callable[[], Encoder]
    decoder: Callable[[], Decoder]


IDENTITY: Final = "identity"
"""The encoding that changes nothing, which everybody has."""


def _zstd(name: str, window_log: int) -> Encoding:
    return Encoding(name, 64, lambda: _ZstdEncoder(window_log), lambda: _ZstdDecoder(window_log))


_known = [Encoding("zlib", 64, _ZlibEncoder, _ZlibDecoder)]
if zstd is not None:
    _known = [_zstd("zstd", 18), _zstd("zstd-8mb", 23), *_known]

ENCODINGS: Mapping[str, Encoding] = MappingProxyType({known.name: known for known in _known})
"""
The encodings that can be used here, by name, best first. Those of zstd need Python 3.14 or
``backports.zstd``.
"""
