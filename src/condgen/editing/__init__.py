"""What is done with a trained model: its latent space walked, its attributes moved, its samples made to obey."""
