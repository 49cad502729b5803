"""What runs around the steps of training: measuring before it, evaluation, stop rules, record and publishing."""
