"""The judgement of a ModelExperiment: what is read, how evidence is folded, which rule follows from it."""
