"""What a sample asks the model to predict."""
