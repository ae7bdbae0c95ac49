"""One schema for records, an append-only store, and merging: never imports torch."""
