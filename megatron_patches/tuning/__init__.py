"""Which layout of a run is fastest on given machines: enumerated, pruned, predicted, ranked, measured."""
