"""What is asked of a causal language model: scores, hidden states, logits in chunks, gradients. No loss is here."""
