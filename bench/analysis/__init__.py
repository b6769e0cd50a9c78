"""A look at trained networks: predictions, receptive fields, Grad-CAM."""
