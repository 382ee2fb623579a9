"""What a user would start from."""
