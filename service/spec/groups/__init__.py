"""The settings of the regularization space, a module per group; `service.spec.space` puts them together."""
