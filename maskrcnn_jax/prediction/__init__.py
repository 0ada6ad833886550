"""From images of any size to results: predictor, tiles, merging, several views, runs over many."""
