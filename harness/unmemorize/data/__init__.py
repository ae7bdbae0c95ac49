"""Texts and token ids, whatever they come in: read, checked, split, and kept apart from their near-duplicates."""
