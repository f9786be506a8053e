"""The init container: brings a version's folder from its store into the pod and proves that it is the right one."""

from fiduciary_server.fetching.fetch import fetch

__all__ = ["fetch"]
