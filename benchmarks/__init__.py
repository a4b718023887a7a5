"""How long reads take here, at peers, and at least."""
