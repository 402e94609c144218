"""Datasets on disk: `.bin`/`.idx`, their manifests, how they are written and checked."""
