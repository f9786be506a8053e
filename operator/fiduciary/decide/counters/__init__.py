"""From samples of Prometheus to closed blocks of an experiment: pure, total, the same bits in a replay.

``samples`` is what was asked for, ``templates`` what is asked of a kind of counter (``runtime``: in pods, ``contour``:
at the gateway), ``tracks`` puts the series of one process on one time line, ``deltas`` counts what happened between two
edges, ``measures`` makes trials and bad requests of it, ``blocks`` closes one block after the other, ``batches`` plans
the queries. See docs/counters.md.
"""
