"""What a training run of any kind needs: options, launching, state, log, meters."""
