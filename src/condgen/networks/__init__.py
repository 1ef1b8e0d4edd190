"""Networks: blocks and nets. `embed(condition, dim)` is the one door from conditions to features."""
