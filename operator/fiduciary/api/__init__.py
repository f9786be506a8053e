"""What a user writes and reads: one pydantic module a kind, shared parts, and the generator of the CRDs."""
