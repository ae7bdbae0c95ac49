"""Where the MLPs of known architectures are."""
