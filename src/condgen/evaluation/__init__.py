"""How good are the samples: pure metric functions, the judge they need, the protocols, and the report."""
