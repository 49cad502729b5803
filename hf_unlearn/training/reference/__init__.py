"""What the model was before unlearning: how its log-probs and distributions are obtained and cached."""
