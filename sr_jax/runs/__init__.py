"""The folder of a run: configuration, checkpoints, logs and what describes each start."""
