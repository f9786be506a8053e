"""Data to measured, exported version: what runs in the training Job. It measures; the operator judges."""
