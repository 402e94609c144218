"""Copies of artefacts at other places: a folder, S3, Google Cloud Storage, the Hugging Face hub."""
