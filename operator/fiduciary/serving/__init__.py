"""How versions are served, behind one protocol: what a backend makes, what it can do, and what was seen of it. Pure."""
