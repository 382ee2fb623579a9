"""One region of an open slide, as a slide of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from coverslip.converter.sources.base import AssociatedImage, SlideMetadata, SlideSource, SourcePyramid
from coverslip.validators.report import Finding

__all__ = ["RegionOfSlide"]


@dataclass(frozen=True, slots=True)
class RegionOfSlide:
    """A `SlideSource` that has one of the regions of another, in the form that `region` gives it."""

    slide: SlideSource
    region: SourcePyramid

    @property
    def path(self) -> Path:
        """See `SlideSource`."""
        return self.slide.path

    @property
    def files(self) -> Sequence[Path]:
        """See `SlideSource`."""
        return self.slide.files

    @property
    def format_name(self) -> str:
        """See `SlideSource`."""
        return self.slide.format_name

    @property
    def format_title(self) -> str:
        """See `SlideSource`."""
        return self.slide.format_title

    @property
    def metadata(self) -> SlideMetadata:
        """See `SlideSource`."""
        return self.slide.metadata

    @property
    def pyramids(self) -> Sequence[SourcePyramid]:
        """The one region."""
        return (self.region,)

    @property
    def associated_images(self) -> Mapping[str, AssociatedImage]:
        """See `SlideSource`."""
        return self.slide.associated_images

    @property
    def findings(self) -> Sequence[Finding]:
        """See `SlideSource`."""
        return self.slide.findings

    def close(self) -> None:
        """See `SlideSource`."""
        self.slide.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
