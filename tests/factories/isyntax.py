"""Philips iSyntax files of a blank slide: XML and an empty table of tiles; nothing here writes Philips's wavelets."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from tests.factories.jpeg_tiles import encode_jpeg
from tests.factories.tissue import tissue

__all__ = ["write_isyntax"]

_BLOCK = 128
_PADDING = 3


def write_isyntax(
    path: Path, *, rows: int = 600, columns: int = 900, levels: int = 3, spacing_um: float = 0.25, seed: int = 0
) -> None:
    """Write a slide that was scanned nowhere, with label and macro image."""
    padding = 2 * ((_PADDING << levels) - _PADDING)
    images = (
        _wsi(rows + padding, columns + padding, levels, spacing_um),
        _picture("LABELIMAGE", (60, 50), seed),
        _picture("MACROIMAGE", (60, 170), seed + 1),
    )
    xml = '<?xml version="1.0" encoding="UTF-8" ?>\n' + _object(
        "DPUfsImport",
        _text("DICOM_ACQUISITION_DATETIME", 0x0008, 0x002A, "20230405060708.000000"),
        _text("DICOM_MANUFACTURER", 0x0008, 0x0070, "PHILIPS"),
        _text("DICOM_MANUFACTURERS_MODEL_NAME", 0x0008, 0x1090, "UFS Scanner"),
        _text("DICOM_DEVICE_SERIAL_NUMBER", 0x0018, 0x1000, "FMT4711-9"),
        _text("DICOM_SOFTWARE_VERSIONS", 0x0018, 0x1020, '"1.8.6824"', "IStringArray"),
        _text("PIM_DP_UFS_INTERFACE_VERSION", 0x301D, 0x1001, "5.0"),
        _text("PIM_DP_UFS_BARCODE", 0x301D, 0x1002, base64.b64encode(b"BC-4711-7").decode()),
        _array("PIM_DP_SCANNED_IMAGES", 0x301D, 0x1003, *images),
    )
    # Group, element, VR and size of the table that tells where the tiles are.
    table = struct.pack("<HH4sI", 0x301D, 0x2015, b"OB\0\0", 0)
    path.write_bytes(xml.encode() + b"\r\n\x04" + table + bytes(4096))


def _wsi(rows: int, columns: int, levels: int, spacing_um: float) -> str:
    ranges = ((0, columns - 1), (0, rows - 1), (0, 2), (0, levels - 1), (0, 3))
    units = ("um", "um", "", "", "")
    scales = (spacing_um, spacing_um, 1, 1, 1)
    dimensions = [
        _object(
            "UFSImageDimension",
            _text("UFS_IMAGE_DIMENSION_NAME", 0x301D, 0x2004, name),
            _text("UFS_IMAGE_DIMENSION_TYPE", 0x301D, 0x2005, kind),
            _text("UFS_IMAGE_DIMENSION_UNIT", 0x301D, 0x2006, unit),
            _text("UFS_IMAGE_DIMENSION_SCALE_FACTOR", 0x301D, 0x2007, str(scale), "IDouble"),
        )
        for name, kind, unit, scale in zip(
            ("x", "y", "component", "scale", "waveletcoef"),
            ("spatial", "spatial", "colour component", "scale", "waveletcoef"),
            units,
            scales,
            strict=True,
        )
    ]
    general = _object(
        "UFSImageGeneralHeader",
        _text("UFS_IMAGE_NUMBER_OF_BLOCKS", 0x301D, 0x2001, "0", "IUInt32"),
        _array("UFS_IMAGE_DIMENSIONS", 0x301D, 0x2003, *dimensions),
        _array("UFS_IMAGE_DIMENSION_RANGES", 0x301D, 0x200A, *map(_range, ranges)),
    )
    block = ((0, _BLOCK - 1), (0, _BLOCK - 1), (0, 0), (0, 0), (1, 3))
    template = _object(
        "UFSImageBlockHeaderTemplate", _array("UFS_IMAGE_DIMENSION_RANGES", 0x301D, 0x200A, *map(_range, block))
    )
    empty = struct.pack("<I", 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 40) + bytes(40)
    return _object(
        "DPScannedImage",
        _text("PIM_DP_IMAGE_TYPE", 0x301D, 0x1004, "WSI"),
        _text("DICOM_LOSSY_IMAGE_COMPRESSION", 0x0028, 0x2110, "01"),
        _text("DICOM_LOSSY_IMAGE_COMPRESSION_RATIO", 0x0028, 0x2112, "8", "IDoubleArray"),
        _text("DICOM_LOSSY_IMAGE_COMPRESSION_METHOD", 0x0028, 0x2114, '"PHILIPS_DP_1_0"', "IStringArray"),
        _array("UFS_IMAGE_GENERAL_HEADERS", 0x301D, 0x2000, general),
        _array("UFS_IMAGE_BLOCK_HEADER_TEMPLATES", 0x301D, 0x2009, template),
        _text("UFS_IMAGE_BLOCK_HEADER_TABLE", 0x301D, 0x2014, base64.b64encode(empty).decode()),
    )


def _picture(kind: str, size: tuple[int, int], seed: int) -> str:
    data = base64.b64encode(encode_jpeg(tissue(*size, seed), 90, subsampling="420")).decode()
    return _object(
        "DPScannedImage",
        _text("PIM_DP_IMAGE_TYPE", 0x301D, 0x1004, kind),
        _text("PIM_DP_IMAGE_DATA", 0x301D, 0x1005, data),
    )


def _range(bounds: tuple[int, int]) -> str:
    return _object(
        "UFSImageDimensionRange",
        _text("UFS_IMAGE_DIMENSION_RANGE", 0x301D, 0x200B, f"{bounds[0]} 1 {bounds[1]}", "IUInt32Array"),
    )


def _object(kind: str, *parts: str) -> str:
    return f'<DataObject ObjectType="{kind}">\n{"".join(parts)}</DataObject>\n'


def _array(name: str, group: int, element: int, *objects: str) -> str:
    return _text(name, group, element, f"\n<Array>\n{''.join(objects)}</Array>", "IDataObjectArray")


def _text(name: str, group: int, element: int, value: str, kind: str = "IString") -> str:
    head = f'<Attribute Name="{name}" Group="0x{group:04X}" Element="0x{element:04X}" PMSVR="{kind}">'
    return f"{head}{value}</Attribute>\n"
