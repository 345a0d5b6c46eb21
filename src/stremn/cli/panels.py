"""Groups of commands in `stremn --help`."""

FOLLOW = "Segment videos"
MEASURE = "Measure (research; hours on a CPU)"
TRAIN = "Train and export"
PREDICT = "Predict frames"
