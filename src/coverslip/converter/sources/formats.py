"""The table of formats: how each is recognised, what becomes of its tiles, and what it needs."""

from __future__ import annotations

import re

from coverslip.converter.sources.evidence import Evidence
from coverslip.converter.sources.slide_format import RefusedFormat, SlideFormat
from coverslip.converter.sources.tiff_structure import TagCode

__all__ = ["FORMATS"]

_OPENSLIDE = ("openslide", "pip install openslide-python openslide-bin")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_AGAIN = "encoded again, as OpenSlide gives the pixels"


def _is_aperio(evidence: Evidence) -> bool:
    return evidence.description.startswith("Aperio")


def _is_vms(evidence: Evidence) -> bool:
    return re.match(rb"\s*\[(Uncompressed )?Virtual Microscope Specimen\]", evidence.header) is not None


def _is_scn(evidence: Evidence) -> bool:
    return "http://www.leica-microsystems.com/scn/" in evidence.description


def _is_ventana(evidence: Evidence) -> bool:
    return evidence.says(TagCode.XMP, r"<iScan\b")


def _is_philips(evidence: Evidence) -> bool:
    return evidence.text(TagCode.SOFTWARE).startswith("Philips") or 'ObjectType="DPUfsImport"' in evidence.description


def _is_isyntax(evidence: Evidence) -> bool:
    return b'ObjectType="DPUfsImport"' in evidence.header and not evidence.pages


def _is_vsi(evidence: Evidence) -> bool:
    # A .vsi is a TIFF of small pictures; what was scanned lies in .ets files in the folder beside it.
    return evidence.header.startswith((b"SIS\0", b"ETS\0")) or evidence.path.suffix.lower() == ".vsi"


def _is_huron(evidence: Evidence) -> bool:
    return re.match(r"Source = .*^Resolution = ", evidence.description, re.DOTALL | re.MULTILINE) is not None


def _is_ome(evidence: Evidence) -> bool:
    return re.search(r"<(\w+:)?OME\b", evidence.description[:4096]) is not None


FORMATS: tuple[SlideFormat | RefusedFormat, ...] = (
    SlideFormat(
        "aperio-svs",
        "Aperio SVS",
        "aperio",
        _is_aperio,
        detected_by="ImageDescription starts with Aperio",
        frames="JPEG and JPEG 2000 copied bit for bit",
        levels="all",
        associated="label, overview, thumbnail",
        spacing="MPP of ImageDescription",
        tested="real and synthetic",
    ),
    SlideFormat(
        "hamamatsu-ndpi",
        "Hamamatsu NDPI",
        "hamamatsu_ndpi",
        lambda evidence: evidence.has(TagCode.NDPI_VERSION),
        "TIFF tag 65420",
        "JPEG cut at restart markers, its bytes copied; without markers encoded again, as OpenSlide gives the pixels",
        "all",
        "overview",
        "resolution tags",
        "synthetic; fluorescence, which is refused, real",
    ),
    SlideFormat(
        "hamamatsu-vms",
        "Hamamatsu VMS and VMU",
        "openslide_source",
        _is_vms,
        "first line, [Virtual Microscope Specimen]",
        _AGAIN,
        "all, and reductions of them",
        "overview",
        "physical size in the index file",
        "synthetic",
        *_OPENSLIDE,
    ),
    SlideFormat(
        "leica-scn",
        "Leica SCN",
        "leica_scn",
        _is_scn,
        "namespace of ImageDescription",
        "JPEG copied bit for bit, a series for each region",
        "all",
        "overview",
        "resolution tags, else the extent of the region",
        "synthetic",
    ),
    SlideFormat(
        "ventana",
        "Ventana BIF and TIFF",
        "ventana_bif",
        _is_ventana,
        "XMP with an iScan element",
        "JPEG copied bit for bit where tiles lie side by side; overlapping ones stitched by OpenSlide, encoded again",
        "all",
        "overview, thumbnail",
        "ScanRes",
        "synthetic",
    ),
    SlideFormat(
        "philips-tiff",
        "Philips TIFF",
        "philips_tiff",
        _is_philips,
        "Software, or ImageDescription with DPUfsImport",
        "JPEG copied bit for bit",
        "all, without the padding",
        "label, overview",
        "XML",
        "synthetic",
    ),
    SlideFormat(
        "mirax",
        "3DHISTECH MIRAX",
        "mirax",
        # Its index is any picture, or nothing at all: only the name tells.
        lambda evidence: evidence.path.suffix.lower() == ".mrxs",
        "the name ends with .mrxs",
        f"{_AGAIN}, stitched",
        "all",
        "label, overview, thumbnail",
        "Slidedat.ini",
        "synthetic",
        *_OPENSLIDE,
    ),
    SlideFormat(
        "trestle",
        "Trestle TIFF",
        "openslide_tiff",
        lambda evidence: evidence.text(TagCode.SOFTWARE).startswith("MedScan"),
        "Software starts with MedScan",
        f"JPEG copied bit for bit where no tiles overlap; else {_AGAIN}, stitched",
        "all",
        "overview",
        "resolution tags, in micrometres per pixel",
        "synthetic",
        *_OPENSLIDE,
    ),
    SlideFormat(
        "huron-tiff",
        "Huron TIFF",
        "openslide_tiff",
        _is_huron,
        "ImageDescription with Source and Resolution",
        "JPEG copied bit for bit",
        "all",
        "label, overview, thumbnail",
        "resolution tags",
        "synthetic",
        *_OPENSLIDE,
    ),
    SlideFormat(
        "argos-avs",
        "Argos AVS",
        "openslide_tiff",
        lambda evidence: "Argos.Scan.Metadata" in evidence.text(TagCode.ARGOS_METADATA),
        "TIFF tag 65000 with Argos.Scan.Metadata",
        "JPEG copied bit for bit",
        "all, of the focal plane in the middle",
        "overview, thumbnail",
        "resolution tags",
        "synthetic",
        *_OPENSLIDE,
    ),
    RefusedFormat(
        "motic-mds",
        "Motic MDS",
        lambda evidence: evidence.header.startswith(_OLE) and evidence.path.suffix.lower() in (".mds", ".mdsx"),
        "magic bytes of an OLE file whose name ends with .mds or .mdsx",
        "export it as TIFF or SVS with the vendor's software, which is read with its tiles as they are",
    ),
    SlideFormat(
        "zeiss-czi",
        "Zeiss CZI",
        "zeiss_czi",
        lambda evidence: evidence.header.startswith(b"ZISRAWFILE"),
        "magic bytes ZISRAWFILE",
        "encoded again, as OpenSlide or, where the file has Z or time, pylibCZIrw gives the pixels, stitched",
        "all; the base alone with pylibCZIrw",
        "label, overview, thumbnail; none with pylibCZIrw",
        "metadata segment",
        "synthetic; real, one RGB and one 16-bit, which is refused",
        readers="openslide, or pylibCZIrw of coverslip[czi]",
    ),
    SlideFormat(
        "sakura-svslide",
        "Sakura SVSLIDE",
        "openslide_source",
        lambda evidence: evidence.header.startswith(b"SQLite format 3\0"),
        "magic bytes of SQLite 3",
        _AGAIN,
        "all",
        "label, overview, thumbnail",
        "database",
        "not tested",
        *_OPENSLIDE,
    ),
    SlideFormat(
        "dicom",
        "DICOM WSI",
        "dicom_wsi",
        lambda evidence: evidence.header[128:132] == b"DICM",
        "magic bytes DICM at byte 128",
        "JPEG, JPEG 2000, HTJ2K, JPEG-LS and uncompressed frames copied bit for bit",
        "all",
        "label, overview, thumbnail",
        "Pixel Spacing, else the extent of the imaged volume",
        "real and synthetic",
    ),
    SlideFormat(
        "philips-isyntax",
        "Philips iSyntax",
        "philips_isyntax",
        _is_isyntax,
        "magic text DPUfsImport in a file that is no TIFF",
        "wavelets, encoded again, as pyisyntax gives the pixels",
        "all",
        "label, overview",
        "dimensions in the XML",
        "synthetic, of a blank slide; no real one was to be had",
        "isyntax",
        "pip install 'coverslip[isyntax]'",
        "pyisyntax of coverslip[isyntax]",
    ),
    RefusedFormat(
        "olympus-vsi",
        "Olympus VSI and ETS",
        _is_vsi,
        "the name ends with .vsi, or magic bytes SIS or ETS",
        "convert the slide's .vsi file, beside its folder, to OME-TIFF with bfconvert of Bio-Formats",
    ),
    SlideFormat(
        "ome-tiff",
        "OME-TIFF",
        "ome_tiff",
        _is_ome,
        "ImageDescription with an OME element",
        "JPEG, JPEG 2000 and uncompressed tiles copied bit for bit, all else encoded again",
        "all",
        "label, overview, thumbnail, by name",
        "PhysicalSizeX and Y",
        "real and synthetic",
    ),
    SlideFormat(
        "generic-tiff",
        "Generic TIFF",
        "generic_tiff",
        lambda evidence: bool(evidence.pages),
        "any other TIFF or BigTIFF",
        "JPEG, JPEG 2000 and uncompressed tiles copied bit for bit, all else encoded again",
        "all",
        "none",
        "resolution tags, unless those of a screen or printer",
        "synthetic",
    ),
)
"""The first that recognises a file reads it."""
