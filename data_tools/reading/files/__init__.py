"""Local files as parts: lines, arrays, rows, texts, packed or not; their shards, and files below folders."""
