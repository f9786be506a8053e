"""The judgement of a DriftPolicy: pure, total, the same bits in a replay.

``reference`` reads what the trainer logged, ``calibrate`` makes of it what each detector rests on, ``windows`` closes
windows of raw counts, ``fold`` and ``losses`` take each of them in once, ``alarms`` begin and end, ``actions`` says
what is asked for and what holds it, ``report`` says all of it. See docs/drift.md.
"""
