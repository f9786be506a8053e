"""The judgement of what serves: which versions are loaded, who answers clients, and what has to be written for it."""
