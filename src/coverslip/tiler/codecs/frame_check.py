"""Look at encoded frames without decoding them: what is copied and decoded by nobody should at least be whole."""

from __future__ import annotations

from coverslip.tiler.codecs.base import FrameFormat

__all__ = ["FrameCheck"]

_SOS = b"\xff\xda"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_2000 = "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20"


class FrameCheck:
    """Says whether frames of one format are whole, as far as their markers tell. Safe in any thread.

    Parameters
    ----------
    frame_format : FrameFormat
    """

    __slots__ = ("_is_jpeg", "_is_jpeg2000", "_usual")

    def __init__(self, frame_format: FrameFormat) -> None:
        self._is_jpeg = frame_format.transfer_syntax_uid in _JPEG
        self._is_jpeg2000 = frame_format.transfer_syntax_uid.startswith(_JPEG_2000)
        self._usual: tuple[bytes, int] = b"", 0  # how frames begin, and their restart markers

    def check(self, frame: bytes) -> None:
        """Look at one frame.

        Raises
        ------
        CorruptSourceError
            If it breaks off, or holds what its coding never does; it knows no level or frame.
        """
        if self._is_jpeg:
            from coverslip.tiler.codecs.jpeg_stream import check_scan, expected_restarts, parse_jpeg

            start, restarts = self._usual
            if not start or not frame.startswith(start):
                restarts = expected_restarts(parse_jpeg(frame))
                start = frame[: frame.find(_SOS)]
                self._usual = start, restarts
            check_scan(frame, len(start), restarts)
        elif self._is_jpeg2000:
            from coverslip.tiler.codecs.jpeg2000_stream import check_tile_parts

            check_tile_parts(frame)
