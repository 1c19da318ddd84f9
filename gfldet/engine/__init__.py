"""The engine: settings in, runs out.  Training, validation and prediction loops, checkpoints and run folders."""
