"""The executable `tools/tflops`: its command line, and what it shows."""
