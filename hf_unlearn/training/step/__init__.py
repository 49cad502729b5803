"""One gradient step: the forward of the model that unlearns, the step wrappers, the log of components."""
