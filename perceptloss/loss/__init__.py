"""Critics as a training loss: terms, one way down to the critics, and the gradient back up."""
