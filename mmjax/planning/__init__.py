"""A training step looked at without the devices it is meant for: `mmjax plan`."""
