"""One slide in, one DICOM series out."""
