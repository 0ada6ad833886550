"""From a model's detections to the files that people use."""
