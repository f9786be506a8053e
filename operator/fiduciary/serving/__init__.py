"""Serving backends behind one protocol. A version that is registered is not served until one of them is active."""
