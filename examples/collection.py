"""Build a small collection of synthetic slides and scans, for the notebook, the example queries and the tests.

``python -m examples.collection FOLDER`` writes slides of three programs with the tables that their curators would have,
converts them with the maps that coverslip ships, adds a multiplex slide and a few radiology series of the same
patients, all without pixels worth looking at, and indexes everything to ``FOLDER/catalog.duckdb``.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, PositronEmissionTomographyImageStorage
from tests.factories.aperio import write_aperio_svs

TCGA = (
    ("TCGA-05-4244-01Z-00-DX1.svs", "TCGA-LUAD", "40"),
    ("TCGA-05-4244-01A-01-TS1.svs", "TCGA-LUAD", "20"),
    ("TCGA-05-4250-11A-01-TS1.svs", "TCGA-LUAD", "20"),
    ("TCGA-12-0819-01Z-00-DX1.svs", "TCGA-GBM", "40"),
)
CMB = (
    ("MSB-00643-01-02", "CMB-CRC", "Colorectal Carcinoma", "Colon", "PRIMARY", "Hematoxylin and Eosin Staining Method"),
    (
        "MSB-00043-01-02",
        "CMB-PCA",
        "Prostate Carcinoma",
        "Prostate",
        "PRIMARY",
        "Hematoxylin and Eosin Staining Method",
    ),
    ("MSB-00043-01-03", "CMB-PCA", "Prostate Carcinoma", "Prostate", "ANT", "Unstained"),
)
HTAN = (("HTA9_1_93", "HTA9_1_9", "H&E"), ("HTA9_1_94", "HTA9_1_9", "H&E"))
Channel = tuple[str, str, str | None, str, int, int]
CHANNELS: tuple[Channel, ...] = (
    # name, target, antibody, fluorophore, excitation, emission
    ("DAPI", "DNA", None, "DAPI", 395, 431),
    ("CD3", "CD3", "Anti-CD3 AB_2889189", "Alexa Fluor 488", 485, 525),
    ("CD45", "CD45", "Anti-CD45 AB_2174123", "Alexa Fluor 555", 555, 590),
    ("Ki-67", "Ki-67", "Anti-Ki-67 AB_2797703", "Alexa Fluor 647", 640, 690),
)
"""Of the multiplex slide, which replaces the second slide of HTAN."""

SCANS = (
    ("TCGA-LUAD", "TCGA-05-4244", "CT", "CHEST CT LUNG", 3),
    ("TCGA-LUAD", "TCGA-05-4244", "CT", "CHEST CT SOFT TISSUE", 2),
    ("TCGA-LUAD", "TCGA-05-4244", "PT", "PET WB", 2),
    ("TCGA-GBM", "TCGA-12-0819", "MR", "AX T1 POST", 2),
    ("TCGA-LUAD", "TCGA-05-9999", "CT", "CHEST CT OF A PATIENT WITHOUT SLIDES", 1),
)
_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m examples.collection FOLDER", file=sys.stderr)
        return 2
    print(build_catalog(Path(sys.argv[1])))
    return 0


def build_catalog(folder: Path) -> Path:
    """Make the collection in a folder, which may hold it already, and return its catalog."""
    catalog = folder / "catalog.duckdb"
    if not catalog.exists():
        build_collection(folder)
        coverslip("index", folder / "dicom", "--to", catalog, "--version-label", "first delivery")
    return catalog


def build_collection(folder: Path) -> Path:
    """Make slides and tables, convert them, add scans, and return the folder of all DICOM files."""
    slides, dicom = folder / "slides", folder / "dicom"
    slides.mkdir(parents=True, exist_ok=True)
    for number, (name, project, objective) in enumerate(TCGA):
        write_slide(slides / project / name, number, objective)
    table = write_table(slides / "tcga.csv", [{"file": name, "project": project} for name, project, _ in TCGA])
    convert([slides / project / name for name, project, _ in TCGA], dicom, table, "tcga")

    for number, (sample, *_) in enumerate(CMB):
        write_slide(slides / f"{sample}.svs", 10 + number, "20")
    table = write_table(slides / "cmb.csv", list(cmb_rows()))
    convert([slides / f"{sample}.svs" for sample, *_ in CMB], dicom, table, "cmb")

    for number, (name, *_) in enumerate(HTAN):
        write_slide(slides / f"{name}.svs", 20 + number, "20")
    table = write_table(slides / "htan.csv", list(htan_rows()))
    specimens = write_table(slides / "biospecimen.csv", [htan_specimen()])
    convert([slides / f"{name}.svs" for name, *_ in HTAN], dicom, table, "htan", "--table", f"biospecimen={specimens}")
    make_multiplex(dicom, HTAN[1][0])
    for scan in SCANS:
        write_scan(dicom / "scans", scan)
    return dicom


def write_slide(path: Path, seed: int, objective: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mpp = {"40": "0.2527", "20": "0.5021"}[objective]
    rows, columns = 300 + 20 * seed, 400 + 30 * seed
    write_aperio_svs(
        path, rows=rows, columns=columns, tile=256, native_downsamples=(), seed=seed, mpp=mpp, app_mag=objective
    )


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def cmb_rows() -> Iterator[dict[str, str]]:
    for sample, collection, diagnosis, organ, tissue, stain in CMB:
        yield {
            "participant_id": sample[:9],
            "sample_id": sample,
            "gender": "Female" if collection == "CMB-CRC" else "Male",
            "race": "WHITE",
            "ethnicity": "NOT HISPANIC OR LATINO",
            "primary_diagnosis": diagnosis,
            "file_name": f"{sample}.svs",
            "organ_or_tissue": organ,
            "sample_type": f"{organ} biopsy",
            "tumor_tissue_type": tissue,
            "tissue_fixative": "Formalin",
            "embedding_medium": "Paraffin Wax",
            "staining_method": stain,
            "collection": collection,
            "collection_event": "ARCHIVAL",
        }


def htan_rows() -> Iterator[dict[str, str]]:
    for name, specimen, assay in HTAN:
        yield {
            "Filename": f"{name}.svs",
            "HTAN Data File ID": name,
            "HTAN Parent Biospecimen ID": specimen,
            "Imaging Assay Type": assay,
            "Microscope": "Leica; Aperio AT2",
            "NominalMagnification": "20",
            "LensNA": "0.75",
        }


def htan_specimen() -> dict[str, str]:
    return {
        "HTAN Biospecimen ID": "HTA9_1_9",
        "Timepoint Label": "Baseline",
        "Acquisition Method Type": "Biopsy",
        "Fixative Type": "Formalin",
        "Preservation Method": "Formalin fixed paraffin embedded - FFPE",
        "Site of Resection or Biopsy": "C50.9",
        "Tumor Tissue Type": "Metastatic",
    }


def convert(slides: Sequence[Path], dicom: Path, table: Path, name: str, *options: str) -> None:
    coverslip("convert", *slides, "-o", dicom, "--metadata", table, "--map", name, "--workers", "2", *options)


def coverslip(*arguments: str | Path) -> str:
    """Run a command as a user would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "coverslip", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"coverslip {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def make_multiplex(dicom: Path, container: str) -> None:
    """Give a converted slide the channels and staining steps of a multiplex one; its pixels stay what they are."""
    for path in sorted(dicom.glob("*/*/*.dcm")):
        ds = dcmread(path)
        if ds.ContainerIdentifier != container:
            continue
        ds.SeriesDescription = "t-CyCIF"
        path_template = ds.OpticalPathSequence[0]
        ds.OpticalPathSequence = [optical_path(path_template, channel) for channel in CHANNELS]
        for specimen in ds.SpecimenDescriptionSequence:
            specimen.SpecimenShortDescription = "t-CyCIF"
            steps = [step for step in specimen.SpecimenPreparationSequence if "hematoxylin" not in str(step)]
            specimen.SpecimenPreparationSequence = [*steps, *(staining(channel) for channel in CHANNELS)]
        dcmwrite(path, ds)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def optical_path(template: Dataset, channel: Channel) -> Dataset:
    name, _, _, _, excitation, emission = channel
    ds = Dataset()
    ds.OpticalPathIdentifier = f"Channel:{name}"
    ds.OpticalPathDescription = name
    ds.IlluminationWaveLength = float(excitation)
    ds.LightPathFilterPassThroughWavelength = [emission]
    ds.ObjectiveLensPower = template.get("ObjectiveLensPower", "20")
    ds.IlluminationTypeCodeSequence = [code("111743", "DCM", "Epifluorescence illumination")]
    ds.IlluminationColorCodeSequence = [code("134223000", "SCT", "Narrow")]
    return ds


def staining(channel: Channel) -> Dataset:
    name, target, antibody, dye, _, _ = channel
    items = [
        coded_item(code("111701", "DCM", "Processing type"), code("127790008", "SCT", "Staining")),
        text_item(code("C44170", "NCIt", "Channel"), f"Channel:{name}"),
        text_item(code("246094008", "SCT", "Component investigated"), target),
        text_item(code("C2480", "NCIt", "Tracer"), dye),
    ]
    if antibody:
        items.append(text_item(code("424361007", "SCT", "Using substance"), antibody))
    ds = Dataset()
    ds.SpecimenPreparationStepContentItemSequence = items
    return ds


def coded_item(name: Dataset, value: Dataset) -> Dataset:
    ds = Dataset()
    ds.ValueType, ds.ConceptNameCodeSequence, ds.ConceptCodeSequence = "CODE", [name], [value]
    return ds


def text_item(name: Dataset, text: str) -> Dataset:
    ds = Dataset()
    ds.ValueType, ds.ConceptNameCodeSequence, ds.TextValue = "TEXT", [name], text
    return ds


def write_scan(folder: Path, scan: tuple[str, str, str, str, int]) -> None:
    """Write the headers of a radiology series, without pixels."""
    protocol, patient, modality, text, count = scan
    series = uid(protocol, patient, modality, text)
    for number in range(1, count + 1):
        ds = Dataset()
        ds.SOPClassUID = _CLASSES[modality]
        ds.SOPInstanceUID = uid(series, str(number))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(protocol, patient, "study"), series
        ds.PatientID = ds.PatientName = patient
        ds.Modality, ds.SeriesDescription, ds.StudyDescription = modality, text, f"{modality} of {patient}"
        ds.StudyDate = ds.SeriesDate = "19900101"
        ds.ClinicalTrialProtocolID = protocol
        ds.InstanceNumber = number
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / series / f"{ds.SOPInstanceUID}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dcmwrite(path, ds, enforce_file_format=True)


def uid(*parts: str) -> str:
    return f"2.25.{int(hashlib.sha256('/'.join(parts).encode()).hexdigest()[:30], 16)}"


if __name__ == "__main__":
    sys.exit(main())
