"""Pure rules over results: which trial wins, which weights are kept."""
