"""From the plan of a series to the headers and writers of its instances; loads pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from coverslip.converter.dataset import (
    InstanceDescription,
    SeriesDescription,
    SeriesIdentity,
    build_instance_dataset,
    build_series_dataset,
    encode_header,
    set_attribute,
)
from coverslip.converter.instance_writer import InstanceWriter
from coverslip.converter.request import ConversionRequest
from coverslip.converter.series_plan import SeriesPlan
from coverslip.converter.sources.base import SourcePyramid

__all__ = ["open_writers"]


def open_writers(stack: ExitStack, folder: Path, plan: SeriesPlan, request: ConversionRequest) -> list[InstanceWriter]:
    """Open the writer of every instance, in the order of the plan; `stack` closes them."""
    pyramid, uids = plan.source_pyramid, plan.uids
    base = plan.instances[0]
    shared = build_series_dataset(
        SeriesDescription(
            identity=SeriesIdentity(
                study_instance_uid=uids["study"],
                series_instance_uid=uids["series"],
                frame_of_reference_uid=uids["frame of reference"],
                acquisition_uid=uids["acquisition"],
                pyramid_uid=uids["pyramid"],
                dimension_organization_uid=uids["dimension"],
                specimen_uid=uids["specimen"],
                container_identifier=plan.container_identifier,
            ),
            metadata=plan.metadata,
            deid=plan.deid,
            optical_paths=pyramid.optical_paths,
            focal_planes=len(pyramid.focal_plane_offsets_um),
            base_size=(base.grid.total_pixel_matrix_rows, base.grid.total_pixel_matrix_columns),
            base_spacing_mm=plan.pyramid.levels[0].pixel_spacing_mm,
            origin_mm=pyramid.origin_mm,
            icc_profile=plan.icc_profile,
            series_number=plan.region_number,
            lowest_plane_um=pyramid.focal_plane_offsets_um[0],
            orientation=pyramid.orientation,
        )
    )
    if request.mapped is not None:
        from coverslip.converter.mapped import apply_mapped

        apply_mapped(shared, request.mapped)
    for keyword, text in request.attributes.items():
        set_attribute(shared, keyword, text)
    if request.mapped is not None:
        from coverslip.converter.mapped import name_specimens

        name_specimens(shared, request.uid_root)
    writers = []
    for number, instance in enumerate(plan.instances, start=1):
        pixels, grid = instance.frame_format, instance.grid
        description = InstanceDescription(
            sop_instance_uid=instance.sop_instance_uid,
            instance_number=number,
            image_type=instance.image_type,
            grid=grid,
            frame_format=pixels,
            pixel_spacing_mm=instance.pixel_spacing_mm,
            earlier_lossy=instance.earlier_lossy,
            derivation=instance.derivation,
            derivation_description=instance.derivation_description,
            shows_label=instance.associated is not None and instance.associated.shows_label,
            barcode=plan.metadata.restricted.get("BarcodeValue", ""),
            origin_mm=plan.metadata.overview_origin_mm if instance.image_type[2] == "OVERVIEW" else None,
            plane_spacing_um=_plane_spacing(pyramid),
        )
        dataset = build_instance_dataset(shared, description)
        writer = InstanceWriter(
            folder / f"{instance.sop_instance_uid}.dcm",
            partial(encode_header, dataset, description),
            pixels,
            grid.number_of_frames,
            grid.rows * grid.columns * pixels.samples_per_pixel * pixels.bits_allocated // 8,
            request.offset_table,
            expected_lengths=_expected_lengths(plan, number - 1),
        )
        writers.append(stack.enter_context(writer))
    return writers


def _plane_spacing(pyramid: SourcePyramid) -> float | None:
    offsets = pyramid.focal_plane_offsets_um
    return (offsets[-1] - offsets[0]) / (len(offsets) - 1) if len(offsets) > 1 else None


def _expected_lengths(plan: SeriesPlan, index: int) -> Sequence[int] | None:
    """Return the frame lengths of an instance whose stored frames are copied, if its source can tell them."""
    if not plan.instances[index].reuses_frames:
        return None
    stored = plan.pyramid.levels[index].stored_level_index
    return None if stored is None else plan.source_pyramid.levels[stored].expected_frame_lengths()
