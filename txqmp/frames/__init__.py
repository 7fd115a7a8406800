"""
The frame protocol: many requests and compressed streams on one connection, without any I/O.

It knows neither QMP nor Twisted. :class:`ClientReactor` and :class:`ServerReactor` take the bytes
that came and the work that is done, and answer with actions; some of those are frames to send.
The wire is that of Mercurial's frame-based protocol at revision r37304, with the additions that
``docs/frames.md`` tells of.
"""

from txqmp.frames.actions import (
    Action,
    CancelCommand,
    Failed,
    GoingAway,
    LinkOpened,
    Nothing,
    Pong,
    RequestCancelled,
    RequestFailed,
    RequestLost,
    Response,
    ResponseData,
    RunCommand,
    SendFrames,
    StreamEncoded,
    TextOutput,
    WantFrame,
)
from txqmp.frames.client import ClientReactor
from txqmp.frames.codec import (
    FLAG_NAMES,
    STREAM_FLAG_NAMES,
    TYPE_NAMES,
    Frame,
    FrameDecoder,
    decode_header,
    encode_frame,
)
from txqmp.frames.commands import command_parts, error_part, response_parts
from txqmp.frames.encodings import ENCODINGS, IDENTITY
from txqmp.frames.errors import (
    Code,
    FrameError,
    FrameLimitError,
    FrameProtocolError,
    FrameUsageError,
)
from txqmp.frames.human import format_frame, parse_frame
from txqmp.frames.limits import Limits
from txqmp.frames.link.words import Terms
from txqmp.frames.requests import RequestIds
from txqmp.frames.server import ServerReactor
from txqmp.frames.sources import FrameSource, ResponseWriter, Scheduler
from txqmp.frames.streams import InputStreams, OutputStream, decode_settings, encode_settings
from txqmp.frames.text import TextAtom, decode_text, encode_text, render_text


__all__ = [
    "ClientReactor",
    "ServerReactor",
    "ResponseWriter",
    "Scheduler",
    "FrameSource",
    "Limits",
    "Terms",
    "Action",
    "SendFrames",
    "Failed",
    "RunCommand",
    "CancelCommand",
    "Response",
    "ResponseData",
    "RequestFailed",
    "RequestCancelled",
    "RequestLost",
    "TextOutput",
    "StreamEncoded",
    "LinkOpened",
    "Pong",
    "GoingAway",
    "WantFrame",
    "Nothing",
    "TextAtom",
    "Frame",
    "FrameDecoder",
    "InputStreams",
    "OutputStream",
    "RequestIds",
    "ENCODINGS",
    "IDENTITY",
    "FLAG_NAMES",
    "STREAM_FLAG_NAMES",
    "TYPE_NAMES",
    "encode_frame",
    "decode_header",
    "parse_frame",
    "format_frame",
    "command_parts",
    "response_parts",
    "error_part",
    "encode_settings",
    "decode_settings",
    "encode_text",
    "decode_text",
    "render_text",
    "FrameError",
    "FrameUsageError",
    "FrameProtocolError",
    "FrameLimitError",
    "Code",
]
