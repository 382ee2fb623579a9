"""What is told of a format, and how its module is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from coverslip.converter.sources.base import SlideSource
from coverslip.converter.sources.evidence import Evidence
from coverslip.errors import MissingDependencyError, UnsupportedSourceError

__all__ = ["RefusedFormat", "SlideFormat"]


@dataclass(frozen=True, slots=True)
class SlideFormat:
    """One line of the table of formats.

    Parameters
    ----------
    name, title : str
        Registry name, and the name for people.
    module : str
        In `coverslip.converter.sources`: where ``open_source(path, structure, background)`` is.
    detect : callable
        Whether the evidence is of this format; looks at magic bytes and tags alone.
    detected_by, frames, levels, associated, spacing, tested : str
        For people: what `detect` looks at; what becomes of the stored tiles; which stored levels there are; which of
        label, overview and thumbnail; where the pixel spacing comes from; on real or synthetic slides.
    dependency, install : str
        Optional library that the module imports, and how to install it; empty for none.
    readers : str
        For people: what reads it, where that is not the one `dependency` alone; its module then looks for them.
    """

    name: str
    title: str
    module: str
    detect: Callable[[Evidence], bool]
    detected_by: str = ""
    frames: str = ""
    levels: str = ""
    associated: str = ""
    spacing: str = ""
    tested: str = ""
    dependency: str = ""
    install: str = ""
    readers: str = ""

    @property
    def installed(self) -> bool:
        """Whether the library that it needs is there; it is not loaded for this."""
        return not self.dependency or find_spec(self.dependency) is not None

    def open(self, evidence: Evidence, background: tuple[int, int, int]) -> SlideSource:
        """Open the slide; `evidence.structure` becomes the source's own.

        Raises
        ------
        MissingDependencyError
            If the library that it needs is not there, or does not load.
        """
        if self.dependency:
            self._require_dependency()
        module = import_module(f"coverslip.converter.sources.{self.module}")
        source: SlideSource = module.open_source(evidence.path, evidence.structure, background)
        return source

    def _require_dependency(self) -> None:
        reader = f"{self.title} slides are read with {self.dependency}"
        try:
            import_module(self.dependency)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == self.dependency.split(".")[0]:
                raise MissingDependencyError(f"{reader}, which is not installed: {self.install}") from error
            raise MissingDependencyError(f"{reader}, which lacks {error.name}: {self.install}") from error
        except Exception as error:
            # Whatever a broken library raises, it is the matter of its formats alone.
            message = f"{reader}, which does not load ({type(error).__name__}): {self.install}"
            raise MissingDependencyError(message) from error


@dataclass(frozen=True, slots=True)
class RefusedFormat:
    """A format that is recognised and not read; `way_out` says what to do."""

    name: str
    title: str
    detect: Callable[[Evidence], bool]
    detected_by: str
    way_out: str

    def open(self, evidence: Evidence, background: tuple[int, int, int]) -> SlideSource:
        """Refuse the slide."""
        raise UnsupportedSourceError(f"a {self.title} file, which is not read: {self.way_out}")
