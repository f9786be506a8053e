"""A throw-away Kubernetes cluster for the demo and the tests, made from pinned sources on the machine at hand."""
