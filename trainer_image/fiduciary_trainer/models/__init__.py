"""The architectures. Each fits on training rows alone and ends as one torch module that can be exported."""
