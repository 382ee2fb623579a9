"""What a slide and a curator's table say, as coded DICOM attributes."""
