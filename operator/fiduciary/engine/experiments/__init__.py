"""ModelExperiments in the cluster: what is gathered for one, and the one status write that keeps what was folded.

``kept`` is what lies in the status beside the state, ``gather`` says when Prometheus is asked for all of them and
``asking`` asks it, ``past`` reads the champion's last seven days, ``log`` is the model's decisions folded, ``observe``
makes the world of one experiment with what ``counts`` and ``outcomes`` read, ``status`` what is written, ``exporting``
appends what was folded where people can fold it again, ``reconcile`` carries it out.
"""
