"""De-identification after PS3.15 Annex E: what of the vendor's file may be written, and what may be claimed of it."""
