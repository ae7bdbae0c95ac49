"""The built-in methods: one file each."""
