"""Open slides of every vendor behind one contract."""
