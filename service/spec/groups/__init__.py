"""The settings of the regularization space, one module per group; `service.spec.space` combines them."""
