"""The packaged suites, one file a subject: which sets are scored, what is answered, which metrics are made of it."""
