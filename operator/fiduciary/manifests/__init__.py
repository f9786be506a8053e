"""Pure builders of children: what a decision wants to exist, as Kubernetes objects."""
