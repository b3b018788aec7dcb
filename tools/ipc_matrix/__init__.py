"""`make ipc-matrix`: every operation of the model with every client, against the running daemon."""
