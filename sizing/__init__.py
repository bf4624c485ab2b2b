"""What a load needs: a queueing model, and the stack that follows from it. Pure: no service, no clock, no file."""
