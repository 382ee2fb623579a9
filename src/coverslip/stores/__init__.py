"""Where series are delivered to: buckets, folders and DICOMweb services behind one contract."""
