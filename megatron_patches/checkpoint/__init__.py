"""The checkpoint protocol: slices, files, manifest, restore."""
