"""Long trials with random faults; `make torture` runs them whole, the tests a short form."""
