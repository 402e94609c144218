"""Named changes to torch, each with its reason and a test that fails when it is no longer needed."""
