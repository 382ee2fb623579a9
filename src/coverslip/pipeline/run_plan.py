"""What every slide of a run goes through, as a value that workers and other machines are given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coverslip.errors import UsageError
from coverslip.pipeline.ledger import Kind, Stage, Task
from coverslip.pipeline.manifest import Slide, is_url
from coverslip.stores.options import Naming, StoreOptions

if TYPE_CHECKING:
    from coverslip.converter.request import ConversionRequest
    from coverslip.stores.base import Store

__all__ = ["CHOOSABLE_STAGES", "RunPlan", "parse_stages", "recipe_of", "steps_of"]

CHOOSABLE_STAGES = (Stage.CONVERT, Stage.VALIDATE, Stage.UPLOAD, Stage.INDEX)
"""Names for ``--stages``. Fetching belongs to converting, and proving what arrived to uploading."""

_WITH = {Stage.CONVERT: (Stage.FETCH, Stage.CONVERT), Stage.UPLOAD: (Stage.UPLOAD, Stage.VERIFY)}


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Return the stages that are named, in the order in which they are made.

    Raises
    ------
    UsageError
        If one is not known.
    """
    named = {part.strip() for part in text.split(",") if part.strip()}
    if not named or (unknown := named - set(CHOOSABLE_STAGES)):
        raise UsageError(
            f"--stages {text}: {', '.join(sorted(unknown)) if named else 'none'}; wanted some of "
            f"{', '.join(CHOOSABLE_STAGES)}"
        )
    return tuple(stage for stage in CHOOSABLE_STAGES if stage in named)


def steps_of(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return all stages that are made and written down, also those that belong to others."""
    return tuple(step for stage in stages for step in _WITH.get(stage, (stage,)))


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How the slides of a run are treated; may be pickled, and holds no secret.

    Parameters
    ----------
    work : Path
        Folder of the run: scratch, series that stay, ledger.
    stages : tuple of Stage
        Of `CHOOSABLE_STAGES`, in their order.
    make_requests : callable
        Returns what makes the conversion request of a slide from its path; called once in each process.
    open_stores : callable or None
        Opens the stores that series are delivered to.
    store_urls : tuple of str
        Their URLs as they call themselves.
    fetching : StoreOptions
        How slides are fetched.
    naming : Naming
    frames : int or None
        Of each instance, to be read back from the store and compared; None for all.
    catalog : str
        Where the catalog is, as `coverslip index --to` takes it; empty for none.
    open_state : callable or None
        Opens the store that shards keep their state in; rows for the catalog go there instead of into it.
    keep : bool
        Whether series stay in `work` though they were delivered.
    connections : int
        Instances of a slide on their way at once.
    series : Path or None
        Folder of series that stay, where that is not in `work`.
    """

    work: Path
    stages: tuple[Stage, ...]
    make_requests: Callable[[], Callable[[Path], ConversionRequest]]
    open_stores: Callable[[], AbstractContextManager[list[Store]]] | None = None
    store_urls: tuple[str, ...] = ()
    fetching: StoreOptions = field(default_factory=StoreOptions)
    naming: Naming = Naming.UUIDS
    frames: int | None = 8
    catalog: str = ""
    open_state: Callable[[], AbstractContextManager[list[Store]]] | None = None
    keep: bool = False
    connections: int = 4
    series: Path | None = None

    @property
    def steps(self) -> tuple[Stage, ...]:
        """All stages that are made and written down, also those that belong to others."""
        return steps_of(self.stages)

    @property
    def delivers(self) -> bool:
        """Whether series leave this machine, so that they need not stay here."""
        return Stage.UPLOAD in self.stages

    @property
    def ledger_file(self) -> Path:
        """The ledger, also of what is in the stores."""
        return self.work / "ledger.sqlite"

    @property
    def kept_folder(self) -> Path:
        """Where series are that stay on this machine."""
        return self.series or self.work / "series"

    @property
    def parts_folder(self) -> Path:
        """Where rows for the catalog wait until they are merged."""
        return self.work / "catalog-parts"

    def scratch_of(self, slide: Slide) -> Path:
        """Return the folder that a slide has to itself while it is worked on."""
        return self.work / "scratch" / slide.key

    def output_of(self, slide: Slide) -> Path:
        """Return the folder that the slide's series are written to."""
        return self.scratch_of(slide) / "series" if self.delivers and not self.keep else self.kept_folder

    def tasks_of(self, slide: Slide) -> list[Task]:
        """Return what must be done for the slide to be done."""
        return [self.task(slide, step) for step in self.steps]

    def task(self, slide: Slide, step: Stage, recipe: str = "") -> Task:
        """Return one stage of a slide; stages of stores and catalogs are told apart by where these are."""
        place = ""
        if step in (Stage.UPLOAD, Stage.VERIFY):
            place = " ".join(self.store_urls)
        elif step is Stage.INDEX:
            place = self.catalog
        return Task(Kind.SLIDE, slide.key, step, place, recipe)


def named_path(slide: Slide) -> Path:
    """Return the path by which tables and maps know the slide, wherever its bytes are now."""
    return Path(unquote(urlsplit(slide.location).path)) if is_url(slide.location) else Path(slide.location)


def request_for(slide: Slide, make_request: Callable[[Path], ConversionRequest]) -> ConversionRequest:
    """Return how a slide is to be converted, before it is here.

    Raises
    ------
    MissingMetadataError
        If the tables do not say what is needed.
    """
    return make_request(named_path(slide))


def recipe_of(slide: Slide, request: ConversionRequest) -> str:
    """Return what changes with everything that shapes the output of a slide besides its bytes.

    What was done by one recipe need not be done again by the same, and must be by another.
    """
    from coverslip.converter.uids import OUTPUT_FORMAT

    stated: Sequence[object] = (OUTPUT_FORMAT, request.uid_root, request.shaping_options(), slide.checksums.stated())
    return hashlib.sha256(repr(stated).encode()).hexdigest()[:32]


def with_place(
    request: ConversionRequest, path: Path, output: Path, workers: int, *, validate: bool
) -> ConversionRequest:
    """Return a request for the slide's bytes where they are now."""
    return replace(
        request,
        path=path,
        output=output,
        workers=workers,
        validate=request.validate if validate else "off",
    )
