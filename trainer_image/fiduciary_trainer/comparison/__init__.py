"""``python -m fiduciary_trainer compare``: two versions, the same past days, one ledger (docs/trainer-contract.md)."""
