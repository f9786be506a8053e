"""`kubectl fiduciary ...`: what people ask the operator from a terminal."""
