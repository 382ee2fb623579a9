"""Metadata of a slide from the named texts of its file, by the vendor's table."""

from __future__ import annotations

from collections.abc import Mapping

from coverslip.converter.sources.base import SlideMetadata
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage
from coverslip.metadata_maps.vendor_table import VendorTable
from coverslip.validators.report import Finding, Severity

__all__ = ["slide_metadata", "tiff_properties", "unknown_loss"]

_PROPERTIES = {
    "tiff.ImageDescription": TagCode.IMAGE_DESCRIPTION,
    "tiff.DocumentName": TagCode.DOCUMENT_NAME,
    "tiff.Make": TagCode.MAKE,
    "tiff.Model": TagCode.MODEL,
    "tiff.Software": TagCode.SOFTWARE,
    "tiff.DateTime": TagCode.DATE_TIME,
    "tiff.Artist": TagCode.ARTIST,
    "tiff.HostComputer": TagCode.HOST_COMPUTER,
}


def tiff_properties(page: TiffPage) -> dict[str, str]:
    """Return the texts of a page's baseline tags, named as OpenSlide names them."""
    return {name: page.text(tag) for name, tag in _PROPERTIES.items()}


def slide_metadata(properties: Mapping[str, str], table: VendorTable, icc_profile: bytes | None) -> SlideMetadata:
    """Return what the properties say of slide and scanner; what the table does not name is not told."""
    software = table.text("SoftwareVersions", properties)
    return SlideMetadata(
        manufacturer=table.text("Manufacturer", properties) or table.manufacturer,
        manufacturer_model_name=table.text("ManufacturerModelName", properties),
        device_serial_number=table.text("DeviceSerialNumber", properties),
        software_versions=(software,) if software else (),
        objective_lens_power=table.lens_power(properties),
        objective_lens_numerical_aperture=table.number("ObjectiveLensNumericalAperture", properties) or None,
        acquisition_datetime=table.acquisition_datetime(properties),
        icc_profile=icc_profile,
        focus_method=table.focus_method,
        restricted=table.restricted(properties),
        identifying=table.identifying_fields(properties),
    )


def unknown_loss(compression: str) -> Finding:
    """Return the remark that is due where a compression, or ``"unknown"``, does not say whether it lost anything."""
    message = (
        f"whether {compression} lost anything is not known"
        if compression != "unknown"
        else ("how the tiles are compressed is not known")
    )
    return Finding(
        "source.compression-unknown", Severity.WARNING, f"{message}: earlier lossy compression cannot be told"
    )
