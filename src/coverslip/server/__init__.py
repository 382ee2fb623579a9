"""Slides over HTTP: DICOMweb, tiles and pages over a folder, a store or a catalog."""
