"""`make bench-drift`: how often we and the usual drift rules cry wolf, and how late they see what is there."""
