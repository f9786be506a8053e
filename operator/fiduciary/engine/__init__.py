"""The loop: keyed queue, mirror of watched objects, reconcile (observe -> decide -> apply -> report)."""
