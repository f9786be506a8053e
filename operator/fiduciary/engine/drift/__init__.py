"""DriftPolicies in the cluster: what is gathered for one, and the one status write that keeps what was folded.

``references`` reads what versions were trained on; ``counters`` asks Prometheus for all policies together, with
``counted`` for what is known, ``asking`` for the questions, ``ends`` for where windows end and ``evidence`` for what is
read there; ``states`` keeps what was folded beside its text, ``observe`` makes the world of one policy, ``status`` says
what is worth a write, ``reconcile`` carries it out.
"""
