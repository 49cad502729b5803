"""One gradient step: the forward of the model that unlearns, step wrappers and weighting around it, and its log."""
