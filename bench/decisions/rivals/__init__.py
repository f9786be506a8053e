"""The usual rules, written from their documentation and, for details, from reading (not copying) their sources.

Each module names the source that it follows and says which settings are the defaults of its documentation. What a rule
leaves open is decided in its favour, and said.
"""
