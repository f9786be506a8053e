"""Whole simulated experiments: how often the operator and the usual rules decide wrongly (``make bench-decisions``).

One replication is one experiment; arrays hold one number a replication, so that ten thousand run at once.

- ``proportions``, ``scatter``, ``wealth``: the operator's evidence as arrays, equal to ``fiduciary.evidence`` by test
- ``traffic``, ``sessions``, ``market``: what happens in the world: requests, outcomes, real S&P 500 sessions
- ``operator_rules``: the operator's verdict as arrays, equal to ``fiduciary.decide`` by test
- ``rivals``: the other rules, one module each
- ``cells``, ``score``, ``report``, ``plots``: which worlds, what is counted, what is shown
"""
