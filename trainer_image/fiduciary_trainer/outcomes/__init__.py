"""Sends outcomes that came later to the outcome scorer: ``python -m fiduciary_trainer outcomes [JOB.json]``.

``document`` checks what it is told, ``table`` reads files, S3 or HTTP, ``process`` sends. It keeps nothing: what was
sent before is sent again, and the scorer, which counts the first value of each key alone, says that it is a duplicate.
"""
