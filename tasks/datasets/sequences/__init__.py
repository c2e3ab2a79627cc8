"""Sequences of frames with a box of one object in each: what trackers train on and are tested on."""
