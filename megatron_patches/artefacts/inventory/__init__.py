"""What there is: artefacts found by their manifests, how they descend from each other, where copies of them lie."""
