"""Work units and the floors they stand on: reporting, checkpoints, pacing, doors, ground."""
