"""A service that converts slides as they arrive in a bucket: a message in, one slide through, proven, answered."""
