"""Every error coverslip raises on purpose, and the exit code each ends in.

::

    CoverslipError                      1  anything else
    ├── UsageError                      2  an option or argument is wrong
    ├── SourceError                     3  the slide cannot be converted as it is
    │   ├── UnsupportedSourceError         not a slide, or a kind that is not read
    │   ├── CorruptSourceError             damaged; knows level, frame and byte offset
    │   ├── MissingMetadataError           a fact is absent that must never be guessed
    │   └── MissingDependencyError         an optional library is needed
    ├── EncodingError                   4  a frame could not be encoded
    ├── ValidationFailedError           5  the output is not what was promised
    ├── StoreError                      6  output or store cannot be written or read
    │   ├── RejectedError                  the store refuses the instance: trying again does not help
    │   └── ConflictError                  something else is stored under the same UIDs or name
    └── CatalogError                    7  the catalog cannot be written or read

Messages are one line, name the slide, say what was found and what is wanted, and hold no text
read from a label or a patient field.
"""

from __future__ import annotations

__all__ = [
    "CatalogError",
    "ConflictError",
    "CorruptSourceError",
    "CoverslipError",
    "EncodingError",
    "MissingDependencyError",
    "MissingMetadataError",
    "RejectedError",
    "SourceError",
    "StoreError",
    "UnsupportedSourceError",
    "UsageError",
    "ValidationFailedError",
]


class CoverslipError(Exception):
    """Base of all errors that coverslip raises on purpose."""

    exit_code = 1


class UsageError(CoverslipError):
    """An option, argument or file given by the user is wrong."""

    exit_code = 2


class SourceError(CoverslipError):
    """The slide cannot be converted as it is."""

    exit_code = 3


class UnsupportedSourceError(SourceError):
    """The file is not a slide, or a kind of slide that is not read."""


class CorruptSourceError(SourceError):
    """The slide is damaged.

    Parameters
    ----------
    reason : str
        What was found and what was wanted, e.g. ``"0 bytes, expected JPEG"``.
    level_index, frame_index : int, optional
        0-based place of the damage.
    byte_offset : int, optional
        Where in the file the damaged data start.
    """

    def __init__(
        self,
        reason: str,
        *,
        level_index: int | None = None,
        frame_index: int | None = None,
        byte_offset: int | None = None,
    ) -> None:
        self.reason = reason
        self.level_index = level_index
        self.frame_index = frame_index
        self.byte_offset = byte_offset
        place = [
            f"{name} {value}"
            for name, value in (
                ("level", level_index),
                ("frame", frame_index),
                ("byte offset", byte_offset),
            )
            if value is not None
        ]
        super().__init__(f"{', '.join(place)}: {reason}" if place else reason)


class MissingMetadataError(SourceError):
    """A fact is absent that must never be guessed (scale, colour, patient)."""


class MissingDependencyError(SourceError):
    """An optional library is needed; the message gives its install command."""


class EncodingError(CoverslipError):
    """A frame could not be encoded."""

    exit_code = 4


class ValidationFailedError(CoverslipError):
    """The output is not what was promised; nothing was delivered."""

    exit_code = 5


class StoreError(CoverslipError):
    """An output folder or store cannot be written or read.

    Parameters
    ----------
    message : str
    retryable : bool
        Whether trying again may help.
    retry_after_s : float, optional
        How long the store asks to be left alone.
    """

    exit_code = 6

    def __init__(self, message: str, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RejectedError(StoreError):
    """The store refuses an instance; trying again does not help."""


class ConflictError(StoreError):
    """Something else is stored under the same UIDs or name."""


class CatalogError(CoverslipError):
    """The catalog cannot be written or read."""

    exit_code = 7
