"""Everything that does I/O with another system: the API server and MLflow. Nothing else in the package does."""
