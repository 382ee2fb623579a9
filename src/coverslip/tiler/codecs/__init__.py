"""Codecs: parse stored codestreams, encode and decode frames; every library is loaded on first use."""

from __future__ import annotations

from coverslip.tiler.codecs.base import CodecOption, FrameDecoder, FrameEncoder, FrameFormat
from coverslip.tiler.codecs.options import parse_codec
from coverslip.tiler.codecs.registry import encoder_like, make_decoder, make_encoder

__all__ = [
    "CodecOption",
    "FrameDecoder",
    "FrameEncoder",
    "FrameFormat",
    "encoder_like",
    "make_decoder",
    "make_encoder",
    "parse_codec",
]
