"""``basin-gate check``: a pipeline's step that ends well only where a version may be promoted."""
