"""One conformance base class per seam."""
