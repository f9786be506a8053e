"""The outcome scorer: joins predictions with delayed outcomes and closes sessions into an immutable ledger.

It imports neither the operator nor the trainer. See docs/outcomes.md.
"""
