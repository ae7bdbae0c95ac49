"""What a plugin must be: the contracts and the hooks, free of torch at import."""
