"""The groups that `stremn --help` lists its verbs in."""

FOLLOW = "Follow objects and predict frames"
MEASURE = "Measure"
TRAIN = "Train and take elsewhere"
