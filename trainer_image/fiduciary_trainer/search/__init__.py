"""A search for hyperparameters, nested inside each set of training rows.

:mod:`space` says what may be tried, :mod:`sampling` what is tried next and what is given up, :mod:`trials` what came of
it and where that is kept, :mod:`run` does it. A trial is the n-th configuration of every search of a training: one for
each fold of the walk-forward, one for the final model, one for each combinatorial split. Each search reads its own
training rows alone, so no test row has a say in what is tested on it.
"""
