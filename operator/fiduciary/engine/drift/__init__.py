"""DriftPolicies in the cluster: what is gathered for one, and the one status write that keeps what was folded.

``references`` reads what versions were trained on, ``counters`` asks Prometheus for all policies together, ``observe``
makes the world of one policy, ``status`` what is written, ``reconcile`` carries it out.
"""
